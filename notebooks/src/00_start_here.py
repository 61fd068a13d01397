# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 00 · Start here
#
# **efflab is a survey article on Transformer efficiency that you can run.** The article makes
# thirty-odd claims such as "attention is the bottleneck" or "INT8 makes a model 75 % smaller".
# Each notebook takes a few of them and lets you predict, compute, measure on *your* machine, turn
# the knobs, and read a verdict, part by part: *holds*, *holds if*, *does not hold*, *undecided*. The
# rule is printed on the verdict's card, and different numbers can change the outcome: any claim can
# lose.
#
# | | |
# |---|---|
# | **Claims** | `attention-quadratic` gets its verdict here; `profile-first` begins here and is judged in notebook 15 |
# | **Time** | 25 minutes; all cells together run in under 40 seconds, offline, without a GPU |
# | **Afterwards you can** | work out a Transformer's parameters, FLOPs and memory on paper and check them; read a profile and a roofline; say at what length attention really begins to dominate |
#
# **Start now:** press `Shift`+`Enter` until a slider appears, and move it. *Run > Run All Cells*
# runs everything.

# %% [markdown] tags=["zh"]
# # 00 · 从这里开始
#
# **efflab 是一篇可以运行的 Transformer 效率综述。** 文章（《大型Transformer效率优化方案全解析》）里有三十来条论断，
# 例如“注意力是瓶颈”“INT8 让模型缩小 75%”。每个笔记本取其中几条，请你先预测，再用公式计算，
# 在*你自己的*机器上实测，亲手调节旋钮，最后逐部分看结论：*成立*、*有条件成立*、*不成立*，或*未定*。
# 判定规则写在结论卡片上，换一组数字就可能换一个结论，所以每条论断都可能被推翻。
#
# | | |
# |---|---|
# | **论断** | 本篇判定 `attention-quadratic`；`profile-first` 从这里开始，到第 15 篇再下结论 |
# | **用时** | 25 分钟；全部单元格合计运行不到 40 秒，无需联网，无需 GPU |
# | **学完之后** | 能在纸上算出 Transformer 的参数量、计算量和内存，并加以验证；能读懂性能剖析和屋顶线图；能说清序列多长时注意力才真正占主导 |
#
# **马上动手：** 连按 `Shift`+`Enter`，直到出现滑块，然后拖动它。
# *Run > Run All Cells* 会运行全部单元格。

# %% tags=["parameters"]
language = "en"
seq_len = 512  # tokens that the measurements use, 1 to 512
prompt = "def fibonacci(n):\n"
n_new = 60  # tokens that the model writes, 0 to 512

# %%
import torch

from efflab import bench, cost, data, lab, points, profile
from efflab.config import PRESETS, ModelConfig
from efflab.lab import check, explore, predict, show, table
from efflab.model import Transformer, attention_weights, attention_written_out, n_parameters
from efflab.publishing.doctor import doctor
from efflab_rooms import texts
from efflab_rooms.start_here import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("00_start_here", exercises.EXERCISES, texts("start_here"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# A Transformer layer has two halves. *Attention* compares every token with every other, so the cost
# of its core grows with the square of the number of tokens, n². Everything else, attention's
# projections and the *feed-forward* network, processes each token alone and grows with n. In a short
# text the rest costs more, in a long one the n² part does. At what length do they cross? Write down
# a number. A wrong guess is fine: that is how this suite teaches.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# Transformer 的每一层分成两半。*注意力*让每个 token 与所有 token 两两比较，
# 核心部分的计算量随 token 数的平方 n² 增长；其余部分，即注意力的投影和*前馈网络*，
# 逐个处理 token，计算量与 n 成正比。文本短时其余部分的开销大，文本长时 n² 部分的开销大。
# 两者在多长时相等？请写下一个数。猜错没关系，这正是本系列的学法。

# %%
crossing = predict(
    "In BERT-base, beyond how many tokens does attention's n² part take more arithmetic than the "
    "rest of a layer?",
    unit="tokens",
    secret="crossing",
)

# %% [markdown] tags=["en"]
# ## 2 · Move your first slider
#
# Drag **sequence length**. The curve on the right is the share of a layer's arithmetic that grows
# with n²; the diamond marks the length at which it reaches one half. The bars on the left show where
# the time would go on a device that reached its datasheet peaks, for one sequence in 16 bits. (For
# *this computer* they use fp32 and the measured peaks that section 4 explains.)
#
# Try three things:
#
# - Drag until the dot passes the diamond.
# - Change the model to `gpt3-175b` and find the crossing again, then to `qwen3-8b`, a model of 2025
#   whose `config.json` allows 40,960 tokens.
# - Go back to `bert-base`, switch **fused attention** off and watch the bars: the same FLOPs can take
#   very different times.

# %% [markdown] tags=["zh"]
# ## 2 · 拖动第一个滑块
#
# 请拖动**序列长度**。右边的曲线是一层的计算量中随 n² 增长的那部分所占的份额，
# 菱形标出它达到一半时的长度；左边的条形表示：假如设备跑满标称峰值，时间会花在哪里
# （一条序列，16 比特；选“本机”时为 fp32，峰值取第 4 节所说的实测值）。
#
# 试三件事。拖到圆点越过菱形为止。把模型换成 `gpt3-175b`，再找一次；再换成 `qwen3-8b`，
# 它是 2025 年的模型，`config.json` 里的上限是 40,960 个 token。然后换回 `bert-base`，
# 关掉**融合注意力**，注意看左边的条形：同样的 FLOPs，耗时可以相差很大。

# %%
explore(figures.where_it_goes, frames=11, most=144)

# %% [markdown] tags=["en"]
# Now your prediction:

# %% [markdown] tags=["zh"]
# 现在揭晓你的预测：

# %%
crossing.reveal(cost.crossing_length(PRESETS["bert-base"], "linear"))

# %% [markdown] tags=["en"]
# The answer is twice BERT-base's channels plus the width of its feed-forward network; section 8
# explains why. BERT-base takes at most 512 tokens.
#
# **Every number in this suite says where it comes from:**
#
# | label | meaning |
# |---|---|
# | measured | on this machine, when the cell last ran |
# | computed | by a formula; the function's docstring names its source |
# | simulated | by a model of a device that is not here |
# | recorded | measured earlier, stored with its device and command |
# | published | from a paper's table |

# %% [markdown] tags=["zh"]
# 它等于 BERT-base 通道数的两倍加上前馈网络的宽度，第 8 节会说明原因；而 BERT-base 最多只接受
# 512 个 token。
#
# **本系列的每个数字都标明来源：**
#
# | 标签 | 含义 |
# |---|---|
# | 实测 | 单元格上次运行时在这台机器上测得 |
# | 计算 | 由公式得出，出处写在函数的文档字符串里 |
# | 模拟 | 手边没有那种设备，由它的模型算出 |
# | 存档 | 先前测得，设备与命令一并保存 |
# | 文献 | 取自论文中的表格 |

# %% [markdown] tags=["en"]
# ## 3 · Why efficiency: growth
#
# Training a dense model takes about 6 FLOPs per parameter and token: 2 forward and 4 backward (3 in
# all in an encoder-decoder, where a token passes through half of the parameters). From BERT-large to
# PaLM, in three and a half years, the largest models grew more than a thousandfold. Chinchilla, a
# month before PaLM, showed that the same compute is better spent on a smaller model and more text.
# Up to July 2024, where this chart ends, no dense model in it is larger than PaLM, while training
# compute kept growing. (The chart leaves out mixtures of experts, in which a token uses only some of
# the parameters. Their *total* size did grow: DeepSeek-V3 of December 2024 has 671 billion
# parameters, of which a token uses 37 billion.)

# %% [markdown] tags=["zh"]
# ## 3 · 为什么要讲效率：增长
#
# 训练一个稠密模型，每个参数、每个 token 大约需要 6 次浮点运算，前向 2 次，
# 反向 4 次（编码器-解码器模型是 3 次，因为一个 token 只经过一半参数）。从 BERT-large 到 PaLM，
# 三年半里最大的模型扩大了上千倍。比 PaLM 早一个月的 Chinchilla 表明，同样的计算量用在更小的模型、
# 更多的文本上更划算。到本图截止的 2024 年 7 月，图中再没有比 PaLM 更大的稠密模型，
# 训练计算量却仍在增长。（图中不含混合专家模型 MoE，它的每个 token 只经过一部分参数；
# 这类模型的*总*参数量仍在增长：2024 年 12 月的 DeepSeek-V3 总参数 6710 亿，每个 token 激活 370 亿。）

# %%
show(figures.growth())

# %% [markdown] tags=["en"]
# ## 4 · Your machine
#
# This is what `efflab doctor` sees. If something is missing, this notebook still runs.

# %% [markdown] tags=["zh"]
# ## 4 · 你的机器
#
# 这是 `efflab doctor` 看到的情况。即使有缺项，也不妨碍本笔记本运行。

# %% tags=["nbval-ignore-output"]
table(doctor(), {"what": "part", "found": "found", "without": "needed for"})

# %% [markdown] tags=["en"]
# How fast is it? We take the fastest matrix product and the fastest copy of a large array that we see
# in two seconds. These two numbers bound what follows: hardly any program computes faster than the
# first or reads main memory faster than the second. (Data that stays in a cache arrives faster;
# section 9 comes back to this.)

# %% [markdown] tags=["zh"]
# 它有多快？取两秒之内最快的一次矩阵乘法，和最快的一次大数组拷贝。这两个数就是后文的上限：
# 程序的计算速度很难超过前者，从主存取数的速度很难超过后者。（留在缓存里的数据来得更快，
# 第 9 节会再谈到。）

# %% tags=["nbval-ignore-output"]
machine = measure.machine()
print(machine.name)
roofs = {
    "fp32 matrix product": (machine.peak("fp32") / 1e9, "GFLOP/s"),
    "copy of a large array": (machine.memory_bandwidth / 1e9, "GB/s"),
    "ridge, where both limits meet": (machine.ridge("fp32"), "FLOP/byte"),
}
rows = [{"quantity": name, "value": value, "unit": unit} for name, (value, unit) in roofs.items()]
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# ## 5 · A model that writes Python
#
# Most notebooks work on `stdlib-gpt`, a small GPT trained on the Python standard library's own
# source. It ships with the suite. Change `prompt` in the parameters cell and see what it writes:
# it has learned how Python looks, and little of what it means.

# %% [markdown] tags=["zh"]
# ## 5 · 一个会写 Python 的模型
#
# 大多数笔记本都用 `stdlib-gpt`：一个在 Python 标准库源码上训练的小型 GPT，随本套件一起提供。
# 改一改参数单元格里的 `prompt`，看看它写什么：它学会了 Python 长什么样，至于是什么意思，
# 学到的不多。

# %% tags=["nbval-ignore-output"]
model = points.language_model()
tokenizer = data.tokenizer()
ids = torch.tensor([[0, *tokenizer.encode(prompt).ids]])  # 0 starts a file
written = model.generate(ids, n_new, temperature=0.5, top_k=20, seed=1)
print(tokenizer.decode(written[0].tolist()))

# %% [markdown] tags=["en"]
# ## 6 · Predict, then measure
#
# Everything in this suite starts from back-of-the-envelope arithmetic. `stdlib-gpt` has 6 layers of
# 192 channels, feed-forward networks of width 768 and a vocabulary of 2,048. How long will your
# machine take for one forward pass over `seq_len` tokens (512 by default)?

# %% [markdown] tags=["zh"]
# ## 6 · 先预测，再实测
#
# 本系列的一切都从几行草稿就能算清的账开始。`stdlib-gpt` 有 6 层，每层 192 个通道，前馈宽度 768，词表大小 2,048。
# 用它对 `seq_len` 个 token（默认 512）做一次前向计算，你的机器需要多久？

# %%
forward_ms = predict("How long does one forward pass of stdlib-gpt take here?", unit="ms")

# %% [markdown] tags=["en"]
# First the formulas. The time is a lower bound, given by the *roofline*: the FLOPs at this machine's
# peak or the bytes at its bandwidth, whichever takes longer.

# %% [markdown] tags=["zh"]
# 先看公式。其中的时间是下界，即*屋顶线*：按本机峰值完成全部浮点运算，或按本机带宽搬完全部字节，
# 取两者中较长的。

# %% tags=["nbval-ignore-output"]
config = model.config
fp32 = dict(value_bytes=4, dropout=False, fused_attention=True)
least_seconds = measure.part_seconds(config, seq_len, machine)
formula = {
    "parameters": cost.num_params(config),
    "FLOPs of a forward pass": cost.forward_flops(config, seq_len),
    "bytes kept for the backward pass": cost.activation_bytes(config, seq_len, 1, **fp32),
    "time of a forward pass (ms)": 1e3 * sum(least_seconds.values()),
}

# %% [markdown] tags=["en"]
# Then reality: we count the model's own tensors, let PyTorch count what each operator multiplies,
# record with hooks what autograd saves, and take the median of repeated runs.

# %% [markdown] tags=["zh"]
# 再看实测：清点模型自己的张量，让 PyTorch 统计每个算子做了多少乘加，
# 用钩子记下 autograd 保存的内容，时间取多次运行的中位数。

# %% tags=["nbval-ignore-output"]
text = torch.from_numpy(data.stdlib_tokens("held-out")[:seq_len])[None]
forward = torch.no_grad()(lambda: model(text))
timing = bench.time_calls(forward, warmup=3, repeats=15)
forward_profile = profile.profile(forward, measure.model_parts(model))
measurement = {
    "parameters": n_parameters(model),
    "FLOPs of a forward pass": forward_profile.flops,
    "bytes kept for the backward pass": bench.saved_bytes(model, text),
    "time of a forward pass (ms)": 1e3 * timing.median,
}
rows = [
    {
        "quantity": name,
        "formula (computed)": formula[name],
        "here (measured)": value,
        "measured / formula": value / formula[name],
    }
    for name, value in measurement.items()
]
table(rows)

# %% tags=["nbval-ignore-output"]
forward_ms.reveal(1e3 * timing.median)
low, high = timing.quartiles
quantities = {
    "forward pass, median": (1e3 * timing.median, "ms"),
    "forward pass, lower quartile": (1e3 * low, "ms"),
    "forward pass, upper quartile": (1e3 * high, "ms"),
    "peak memory": (bench.peak_bytes(forward) / 1e6, "MB"),
}
rows = [{"quantity": name, "value": v, "unit": unit} for name, (v, unit) in quantities.items()]
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Parameters and FLOPs agree to the last digit. The bytes kept for the backward pass exceed the
# formula, which counts only the layers: the final norm, the input of the logits and the LayerNorms'
# statistics come on top. The time is above its bound; section 7 shows where the difference comes
# from.
#
# Training keeps several times as many bytes as the forward pass alone needs at its peak, because
# activations have to wait for the backward pass. Notebook 06 comes back to this.
#
# **Noise is lesson one.** The same pass, timed interleaved with itself, should give a ratio of 1. How
# far it is off is this machine's noise at this hour. Such a comparison of a thing with itself is
# called an *A/A test*, and the range around 1 that it covers is the *A/A band*. From here on, a ratio
# of times counts as a difference only if its whole interval lies outside that band.

# %% [markdown] tags=["zh"]
# 参数量和 FLOPs 分毫不差。内存比公式多一些，因为公式只算各层：最后的归一化、logits 的输入、
# LayerNorm 的统计量都没有计入。时间则比下界高出一截，第 7 节会拆解这段差距。
#
# 训练时要保留的字节数是纯前向峰值的好几倍：激活值要留到反向传播时使用。第 06 篇会回到这一点。
#
# **第一课是噪声。** 把同一次前向计算与它自己交替计时，比值本该是 1。实际得到的偏差，
# 就是这台机器此刻的噪声。这种自己与自己的对比叫 *A/A 测试*，测得的波动范围就是 *A/A 噪声带*：
# 从这里起，只有整个区间都落在噪声带之外，耗时之比才算有差别。

# %% tags=["nbval-ignore-output"]
noise = bench.compare(forward, {"the same": forward}, warmup=1, repeats=15)
rows = [
    {
        "quantity": "A/A ratio (the pass / itself)",
        "value": noise.again.mean,
        "unit": "x",
        "interval, low": noise.again.low,
        "interval, high": noise.again.high,
    },
    {
        "quantity": "A/A band: smaller differences do not count",
        "value": 100 * noise.band,
        "unit": "±%",
    },
]
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# ## 7 · Where the time goes
#
# The article's advice is to profile before optimizing. This is PyTorch Profiler's own table of one
# forward pass:

# %% [markdown] tags=["zh"]
# ## 7 · 时间花在哪里
#
# 文章建议先做性能剖析再优化。下面是 PyTorch Profiler 对一次前向计算给出的表格。各列依次是：算子名（Name）、
# 自身耗时的占比与数值（Self CPU %、Self CPU，不含它调用的算子）、连同所调用算子的总耗时（CPU total）、
# 调用次数（# of Calls）：

# %% tags=["nbval-ignore-output"]
print(profile.profiler_table(forward, n_rows=6))

# %% [markdown] tags=["en"]
# The profiler gives times and numbers of calls. We add what each operator computed and moved, which
# tells *why* it takes its time:

# %% [markdown] tags=["zh"]
# 它给出时间和调用次数。我们再补上每个算子算了多少、搬了多少，这样才知道时间*为什么*花在那里：

# %% tags=["nbval-ignore-output"]
total = sum(op.seconds for op in forward_profile.operators)
rows = [
    {
        "operator": measure.short_name(op.name),
        "calls": op.calls,
        "share of time": f"{100 * op.seconds / total:.0f}%",
        "ms": 1e3 * op.seconds,
        "GFLOP": op.flops / 1e9,
        "MB moved": op.bytes / 1e6,
        "GFLOP/s": op.flops / op.seconds / 1e9,
        "GB/s": op.bytes / op.seconds / 1e9,
    }
    for op in forward_profile.operators[:6]
]
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
show(figures.timeline(forward_profile))

# %% [markdown] tags=["en"]
# Read the timeline from left to right: embedding, then attention and feed-forward six times, then
# logits. `addmm` is every linear layer, `scaled_dot_product` the quadratic part of attention, `mm`
# the logits. LayerNorm and the additions mostly move bytes. So does GELU, but it also evaluates an
# error function for every value, which a count of matrix products misses.
#
# So why is the pass slower than its bound? For each kind of work, the table gives the least time by
# the roofline and the time taken. (Under the profiler a pass takes longer than section 6's median,
# and part of *between operators* is the profiler's own overhead. The bound here also counts
# LayerNorm, GELU and the additions.)

# %% [markdown] tags=["zh"]
# 从左往右读：嵌入，六次注意力与前馈，最后是 logits。`addmm` 是所有线性层，
# `scaled_dot_product` 是注意力的平方部分，`mm` 是 logits。LayerNorm 和加法主要在搬运字节。
# GELU 也要搬运，此外还要对每个值计算误差函数，而只数矩阵乘法是看不到这一点的。
#
# 那么，这次前向为什么比下界慢？逐类来看，左边是屋顶线给出的最短时间，右边是实际时间。（在剖析器下，一次前向的用时比第 6 节的中位数长，
# “算子之间”有一部分是剖析器自身的开销；这里的下界还算上了 LayerNorm、GELU 和加法。）

# %% tags=["nbval-ignore-output"]
table(measure.gap_rows(forward_profile, machine), kind="measured")

# %% [markdown] tags=["en"]
# Amdahl's law turns a profile into a decision: if a part takes the share p of the time and is made k
# times faster, the whole becomes 1 / (1 - p + p / k) times faster. With p = 0.3, even an infinitely
# fast attention gives at most 1.43x. (`profile-first` gets its verdict in notebook 15, where
# a profile and a count of FLOPs choose what to change first.)

# %% [markdown] tags=["zh"]
# 从剖析到决策，靠的是阿姆达尔定律：占总时间份额 p 的部分，速度变为 k 倍，
# 整体的加速比就是 1 / (1 - p + p / k)。若 p = 0.3，哪怕注意力快到不花时间，整体的加速比也不超过 1.43。
# （`profile-first` 到第 15 篇下结论，在那里要决定先改哪里：看剖析，还是数 FLOPs。）

# %% [markdown] tags=["en"]
# ## 8 · When is attention the bottleneck?
#
# Write C for the number of channels (`d_model`), F for the feed-forward width (`d_ff`) and n for the
# number of tokens. In each layer, with 2 FLOPs per multiply-accumulate:
#
# | part | FLOPs per token | grows with |
# |---|---|---|
# | scores and weighted values (Q·Kᵀ, then ·V) | 4 n C | n |
# | Q, K, V and output projections | 8 C² | - |
# | feed-forward | 4 C F | - |
#
# The scores cost as much as the feed-forward network when 4 n C = 4 C F, so at **n = F**; they cost
# as much as *everything else in the layer* at **n = 2 C + F**. Batch size and number of layers
# cancel.

# %% [markdown] tags=["zh"]
# ## 8 · 注意力何时成为瓶颈？
#
# 记 C 为通道数（`d_model`），F 为前馈宽度（`d_ff`），n 为 token 数。每层、
# 每个 token 的计算量如下，一次乘加计 2 FLOPs：
#
# | 部分 | 每 token 的 FLOPs | 随什么增长 |
# |---|---|---|
# | 分数与加权求和（先 Q·Kᵀ，再 ·V） | 4 n C | n |
# | Q、K、V 与输出投影 | 8 C² | - |
# | 前馈 | 4 C F | - |
#
# 由 4 n C = 4 C F 得 **n = F**，此时分数与前馈网络的计算量相等；到 **n = 2 C + F**，
# 分数与*该层其余全部*的计算量相等。批大小和层数都约掉了。

# %%
show(figures.attention_shares())

# %%
rows = []
for name in ("bert-base", "gpt2", "gpt2-xl", "gpt3-175b", "qwen3-8b"):
    preset, dropout = PRESETS[name], name != "qwen3-8b"
    rest = cost.activation_bytes(preset, 1, 1, recompute="selective", dropout=dropout)
    # of one token; the scores' bytes grow with n², the rest's with n
    scores = cost.activation_bytes(preset, 1, 1, dropout=dropout) - rest
    rows.append(
        {
            "model": name,
            "longest input (tokens)": preset.max_len,
            "n² share at that length": f"{100 * cost.attention_share(preset, preset.max_len):.0f}%",
            "n² = feed-forward at (tokens)": cost.crossing_length(preset, "ffn"),
            "n² = everything else at (tokens)": cost.crossing_length(preset, "linear"),
            "n² = half of stored bytes at (tokens)": round(rest / scores),
        }
    )
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# None of the four older models reaches its own crossing: at their longest inputs, attention's
# quadratic part is 10% of the arithmetic in BERT-base's layers and 3% in GPT-3's. The wider the
# model, the later the crossing.
#
# But look at the column *n² = half of stored bytes at (tokens)*: training without a fused kernel
# stores the scores. With attention dropout, they are half of all the activations from about 435
# tokens on in BERT-base's shape; without dropout, from 1,024, and in Qwen3-8B, which has none, from
# 2,528. (BERT and GPT-2 were trained with attention dropout; GPT-3's paper mentions none, and
# Korthikanti et al. count it.) Quadratic *memory* hurt long before quadratic arithmetic did.
#
# Today's contexts lie on the other side: at 128k tokens the quadratic part is 97% of the layers'
# arithmetic in BERT-base's shape, and 64% even in GPT-3's, if every layer has dense attention (the
# paper's own model alternates dense and banded layers). Qwen3-8B (2025) crosses at 23,552 of its
# own 40,960 tokens. Its quadratic part comes from its 32 heads of 128 channels (4 n · 32 · 128,
# here again 4 n C); that they share 8 heads of keys and values does not shrink it. Its linear part
# is the projections, which the sharing reduces from 8 C² to 5 C², and a *gated* feed-forward
# network, 6 C F (a third matrix makes the gate that multiplies the inner values). So n = 1.25 C +
# 1.5 F.
#
# Does the arithmetic predict the time? We time one layer of `stdlib-gpt`: its projections and
# feed-forward network, which grow with n; PyTorch's fused attention; and attention written out as
# in the formula, with the whole matrix of scores in memory.

# %% [markdown] tags=["zh"]
# 四个旧模型没有一个到达自己的交点：取各自最长的输入，平方部分只占 BERT-base 各层计算量的 10%，
# 在 GPT-3 中只占 3%。模型越宽，交点越远。但请看“n² 占所存字节一半”这一列：
# 训练时若不用融合内核（fused kernel），就要存下分数；若对注意力用 dropout（BERT 和 GPT-2 就是这样训练的；
# GPT-3 的论文没有写，Korthikanti 等按用了 dropout 计算），
# 按 BERT-base 的形状，大约从 435 个 token 起，分数就占了所存激活值的一半（不用 dropout 则从
# 1,024 个起；Qwen3-8B 本就不用，从 2,528 个起）。平方级的*内存*远比平方级的计算更早成为问题。
#
# 如今的上下文则在另一侧：128k 个 token 时，即使按 GPT-3 的形状（假定每层都用稠密注意力；论文中是稠密与带状稀疏交替），
# 各层计算量也有 64% 是平方部分，按 BERT-base 的形状则有 97%；Qwen3-8B（2025）的上下文为 40,960，交点在 23,552，已落在其中。
# 平方部分来自它的 32 个头，每头 128 维（4 n · 32 · 128，这里恰好仍是 4 n C）；它们虽然共用 8 个键值头，这一部分却不会因此减少。
# 线性部分是投影和门控前馈网络：前者因共用键值头从 8 C² 降到 5 C²，后者多一个产生“门”的矩阵，中间值要逐元素乘以这个门，共三个矩阵，为 6 C F，
# 所以 n = 1.25 C + 1.5 F。
#
# 计算量能说明耗时吗？我们实测 `stdlib-gpt` 的一层：与 n 成正比的投影和前馈网络、PyTorch 的融合注意力，
# 以及照公式写的注意力（整个分数矩阵都放在内存里）。

# %%
lab.show_source(attention_weights, attention_written_out)

# %% tags=["nbval-ignore-output"]
lengths = (256, 384, 512, 768, 1024, 1536, 2048)
times = measure.time_layer(model.layers[0], lengths, unfused=True)
show(figures.layer_times(config, times))

# %% [markdown] tags=["en"]
# One shape could be a coincidence, so we add two more, of 128 and 384 channels, again with heads of
# 32 channels. With F = 4 C, n² is half of the FLOPs at 6 C tokens. At what length does the fused
# kernel take half of the time?

# %% [markdown] tags=["zh"]
# 只看一种形状也许是碰巧，所以再加两种：128 和 384 个通道，每头同样 32 维。F = 4 C 时，n² 在 6 C 个 token 处占
# FLOPs 的一半。融合内核又在多长时占耗时的一半？

# %% tags=["nbval-ignore-output"]
half = cost.crossing_length(config, "linear")
clocks = {config.d_model: measure.crossing(times, "fused", unit=half)}
for channels in (128, 384):
    shape = ModelConfig(1, channels // 32, channels, 4 * channels, 2, 2)
    n = cost.crossing_length(shape, "linear")
    timings = measure.time_layer(Transformer(shape).layers[0], (n // 2, n, 3 * n // 2))
    clocks[channels] = measure.crossing(timings, "fused", unit=n)
unfused = measure.crossing(times, "unfused", unit=half)

# %% tags=["nbval-ignore-output"]
ratios = [("fused (SDPA)", channels, ratio) for channels, ratio in clocks.items()]
ratios.append(("unfused (scores in memory)", config.d_model, unfused))
rows = [
    {
        "attention": name,
        "channels": channels,
        "n² = half of FLOPs at (tokens)": 6 * channels,
        "n² = half of time at (tokens)": round(6 * channels * ratio.mean),
        "crossing length by time / by FLOPs": ratio.mean,
        "interval, low": ratio.low,
        "interval, high": ratio.high,
    }
    for name, channels, ratio in ratios
]
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# The table shows how closely time follows the arithmetic on this machine. The fused kernel computes
# what the formula counts. The unfused code above does the same arithmetic, but it writes the n²
# scores to memory three times (the products, then scaled, then after the softmax) and reads them back
# as often, so it crosses earlier. (Where the matrix of scores grows large, the curve may jump by far
# more than this traffic explains, probably because the system maps fresh memory for each of the
# three. We have not investigated it.) For code written that way, "attention is the bottleneck" was
# true at shorter lengths; FlashAttention (Dao et al. 2022) moved the crossing towards where the FLOPs
# put it.
#
# ### Where this breaks
#
# - **Causal models.** The formula counts full scores. A kernel that skips the masked half crosses
#   at twice the length.
# - **Generating token by token.** With a cache of keys and values, each step reads all weights and
#   the whole cache for one token, so bytes decide, not FLOPs. A layer's cache of n tokens holds 2 n C
#   values, its matrices 4 C² + 2 C F. For one sequence the two are equal at the same n = 2 C + F, for
#   B sequences side by side at a B-th of that length, and later where heads share their keys and
#   values. For each new token, Qwen3-8B in 16 bits reads 15.1 GB of weights, and 147 kB of cache for
#   every token before it. Its cache equals its weights at about 102,700 tokens, beyond the 40,960 of
#   its `config.json` (YaRN, which rescales the positions, extends that to 131,072). What decoding
#   changes is the subject of notebook [16](16_decoding.ipynb).
# - **Small matrices.** The time of operators far below the roof does not follow their FLOPs. That is
#   the next section.

# %% [markdown] tags=["zh"]
# 从表中可以看出，这台机器上的耗时在多大程度上由计算量决定。融合内核做的正是公式所数的运算。
# 非融合的写法计算量相同，但上面的代码把 n² 个分数写进内存三遍（乘积、缩放后、softmax 后），
# 又读出三遍，所以交点出现在更短的长度。
# （分数矩阵很大时，曲线可能陡升，升幅远超这些读写所能解释的：多半是系统每次都要为这三个矩阵重新映射内存，我们没有细究。）对当年那样实现的人来说，“注意力是瓶颈”在更短的文本上就成立；
# FlashAttention（Dao 等，2022）把交点推向 FLOPs 所决定的位置。
#
# ### 何时失效
#
# - **因果模型。** 这里数的是完整的分数矩阵。若内核跳过被遮住的一半，交点要到两倍长度处。
# - **逐 token 生成。** 有了 KV 缓存，每一步都要为一个 token 读取全部权重和整个缓存。
#   此时起决定作用的是字节而不是 FLOPs：一层的缓存有 2 n C 个值，矩阵有 4 C² + 2 C F 个。只生成一条序列时，
#   两者恰好也在 n = 2 C + F 相等；同时生成 B 条，则缩短到 B 分之一；若多个头共用键和值，则更长：
#   Qwen3-8B 用 16 比特时，每生成一个 token 要读 15.1 GB 权重，此前的每个 token 再读 147 kB 缓存，
#   到约 102,700 个 token 两者才相等，已超出它 `config.json` 里的 40,960（用 YaRN 缩放位置编码，可以扩展到 131,072）。
#   解码带来哪些变化，另有一篇专门讲：[16](16_decoding.ipynb)。
# - **小矩阵。** 远低于屋顶线的算子，耗时并不由 FLOPs 决定。这就是下一节的内容。

# %% [markdown] tags=["en"]
# ## 9 · The roofline of your machine
#
# Each operator has an *arithmetic intensity*: its FLOPs per byte read or written. Left of the ridge
# an operator is limited by memory, right of it by arithmetic (Williams et al. 2009). Its distance
# below the roof is the most that a better kernel could gain.

# %% [markdown] tags=["zh"]
# ## 9 · 你的机器的屋顶线
#
# 每个算子都有自己的*算术强度*：每读写一个字节所做的 FLOPs。在拐点（ridge point）左侧受内存限制，
# 在右侧受计算限制（Williams 等，2009）。点离屋顶线有多远，更好的内核最多就还能快多少。

# %% tags=["nbval-ignore-output"]
decode = torch.no_grad()(lambda: model(text[:, :1]))
decode()
one_token = profile.profile(decode).operators
show(figures.roofline(machine, forward_profile.operators, one_token))

# %% [markdown] tags=["en"]
# The products over the whole text lie on the right: at this length the model is compute-bound. The
# same products over *one* token, as in one step of generation (here without a cache, so attention
# sees one key), lie far on the left: every weight is read for a single multiply-accumulate. They are
# memory-bound, so their roof is the slope. They may even lie above it (over 100%), because the slope
# is that of main memory, and weights this small may stay in the caches. LayerNorm, GELU and the
# additions do no matrix products at all; the table in section 7 gives their GB/s.

# %% [markdown] tags=["zh"]
# 对整段文本做的矩阵乘法都在右侧：在这个长度上，模型受计算限制。同样的乘法若只对*一个* token 做，
# 就像生成文本的一步（这里没有缓存，注意力只看到一个键），就落在最左边：每个权重读进来只做一次乘加。受内存所限，
# 它们够不着峰值，屋顶就是左边的斜坡。它们甚至可能高过斜坡（超过 100%），因为斜坡按主存的带宽画出，而这么小的权重可能留在缓存里。
# LayerNorm、GELU 和加法不做矩阵乘法，第 7 节的表给出了它们的 GB/s。

# %% [markdown] tags=["en"]
# ## 10 · The board
#
# Every technique in this suite adds one point to the same board: bytes, time and quality of the same
# model. The first point is the unchanged model. Quality is measured in bits per byte on
# standard-library modules that the model never saw; lower is better. Time is a multiple of the
# unchanged model's, with both timed interleaved, so points from different notebooks can be compared.
# The grey behind each point is the A/A noise of the run that measured it. Points of notebooks that
# you have not reached stay hidden.

# %% [markdown] tags=["zh"]
# ## 10 · 总榜
#
# 本系列的每种技术都在同一张榜上留下一个点：同一个模型的字节数、耗时和质量。
# 第一个点就是模型本来的样子。质量是模型在从未见过的标准库模块上的每字节比特数，越低越好。
# 耗时是与原模型交替实测所得的倍数，这样不同笔记本里的点才能相互比较；每个点背后的灰色带是该次测量自身的 A/A 噪声。
# 你还没读到的笔记本，它们的点暂时不显示。

# %% tags=["nbval-ignore-output"]
lab.board.add(technique="baseline", **points.language_point(model))

# %% [markdown] tags=["en"]
# ## 11 · Verdict

# %% [markdown] tags=["zh"]
# ## 11 · 结论

# %% tags=["nbval-ignore-output"]
evidence = verdicts.attention_evidence(clocks, unfused)
lab.verdict("attention-quadratic", verdicts.attention_quadratic(evidence))

# %% [markdown] tags=["en"]
# ## 12 · Exercises
#
# **00-1.** Llama 2's 7B model has layers of 4,096 channels and a SwiGLU feed-forward network of
# *three* matrices between 4,096 and 11,008. From how many tokens on do the scores cost more than
# the feed-forward network?
#
# <details><summary>Hint</summary>Write both costs for one token: 4 n C, and 2 C F for each matrix.</details>

# %% [markdown] tags=["zh"]
# ## 12 · 练习
#
# **00-1.** Llama 2 的 7B 模型每层有 4,096 个通道，SwiGLU 前馈网络由*三个*矩阵组成，
# 在 4,096 维与 11,008 维之间变换。从多少个 token 起，分数的计算量超过前馈网络？
#
# <details><summary>提示</summary>写出每个 token 的两种计算量：4 n C，以及每个矩阵 2 C F。</details>

# %% tags=["exercise", "ex-00-1"]
answer_1 = ...

# %%
check("00-1", answer_1)

# %% [markdown] tags=["solution", "ex-00-1"]
# <details><summary>Solution</summary>
#
# ```python
# answer_1 = 16512  # 4 n C = 3 x 2 C F, so n = 1.5 F: the channels cancel
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **00-2.** Write the FLOPs of attention's quadratic part over all layers, for n tokens.
#
# <details><summary>Hint</summary>Two products per layer; each has n · n · d_model multiply-accumulates, all heads together.</details>

# %% [markdown] tags=["zh"]
# **00-2.** 写出 n 个 token 时，所有层中注意力平方部分的 FLOPs。
#
# <details><summary>提示</summary>每层有两次矩阵乘法；每次的乘加数为 n · n · d_model，各头合计。</details>


# %% tags=["exercise", "ex-00-2"]
def attention_flops(n, d_model, n_layer):
    return ...


# %%
check("00-2", attention_flops)

# %% [markdown] tags=["solution", "ex-00-2"]
# <details><summary>Solution</summary>
#
# ```python
# def attention_flops(n, d_model, n_layer):
#     return n_layer * 2 * (2 * n * n * d_model)  # two products, 2 FLOPs a multiply-accumulate
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **00-3.** Amdahl's law: a part takes `share` of the time and becomes `factor` times faster. How
# many times faster is the whole?
#
# Then use it: take the share of `scaled_dot_product` from the table in section 7 (the timeline's lane
# *attention* also includes the projections). How many times faster would the whole be if attention
# were twice as fast?
#
# <details><summary>Hint</summary>What is left of one second? The untouched part stays, the other is
# divided by the factor.</details>

# %% [markdown] tags=["zh"]
# **00-3.** 阿姆达尔定律：某部分占总时间的 `share`，速度变为 `factor` 倍。整体的速度变为多少倍？
#
# 然后用一用：从第 7 节的表里读出 `scaled_dot_product` 的份额（时间线上“注意力”一行还包括投影）。若注意力的速度变为 2 倍，整体的速度变为多少倍？
#
# <details><summary>提示</summary>原来的一秒钟还剩多少？没有加速的部分不变，加速的部分除以倍数。</details>


# %% tags=["exercise", "ex-00-3"]
def speedup(share, factor):
    return ...


# %%
check("00-3", speedup)

# %% [markdown] tags=["solution", "ex-00-3"]
# <details><summary>Solution</summary>
#
# ```python
# def speedup(share, factor):
#     return 1 / (1 - share + share / factor)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - Parameters and FLOPs follow from a model's shape exactly; memory to within a few per cent; time is
#   at least what the roofline says.
# - If heads share no keys and values and the feed-forward network has no gate, attention's n² part
#   costs as much as the feed-forward network at n = F, and as much as everything else in the layer at
#   n = 2 C + F. For BERT, GPT-2 and GPT-3 the crossing lies beyond their own context; for Qwen3-8B,
#   and at today's 128k tokens, it does not. Without a fused kernel, memory becomes the problem at
#   much shorter lengths.
# - Profile first, then apply Amdahl's law: speeding up a small share cannot bring a large gain.
#
# **References.** Vaswani et al. 2017, *Attention Is All You Need*, arXiv:1706.03762. Kaplan et al.
# 2020, *Scaling Laws*, arXiv:2001.08361. Hoffmann et al. 2022, *Chinchilla*, arXiv:2203.15556.
# Korthikanti et al. 2022, *Reducing Activation Recomputation*, arXiv:2205.05198. Dao et al. 2022,
# *FlashAttention*, arXiv:2205.14135. Williams et al. 2009, *Roofline*,
# doi:10.1145/1498765.1498785. DeepSeek-AI 2024, *DeepSeek-V3*, arXiv:2412.19437. Qwen Team 2025,
# *Qwen3 Technical Report*, arXiv:2505.09388. The growth chart's sources are in `data/published/growth.csv`.
#
# **Next:** [01 · Parameter sharing](01_parameter_sharing.ipynb), or straight to [03 · Sparse
# attention](03_sparse_attention.ipynb), which makes the n² part linear and asks what that costs.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 参数量和 FLOPs 由模型形状精确决定；内存的误差只有百分之几；时间不会少于屋顶线给出的值。
# - 若各头不共用键和值、前馈网络不带门控，注意力的 n² 部分在 n = F 时与前馈网络的计算量相等，在 n = 2 C + F 时与该层其余全部的计算量相等。
#   对 BERT、GPT-2、GPT-3 来说，这超出了自己的上下文长度；对 Qwen3-8B 和如今的 128k 上下文则不然。若没有融合内核，
#   在短得多的长度上，内存就先成了问题。
# - 先剖析，再用阿姆达尔定律：占比小的部分，再快也带不来大收益。
#
# **参考文献。** Vaswani 等 2017，*Attention Is All You Need*，arXiv:1706.03762。Kaplan 等 2020，
# *Scaling Laws*，arXiv:2001.08361。Hoffmann 等 2022，*Chinchilla*，arXiv:2203.15556。
# Korthikanti 等 2022，*Reducing Activation Recomputation*，arXiv:2205.05198。Dao 等 2022，
# *FlashAttention*，arXiv:2205.14135。Williams 等 2009，*Roofline*，doi:10.1145/1498765.1498785。
# DeepSeek-AI 2024，*DeepSeek-V3*，arXiv:2412.19437。Qwen Team 2025，*Qwen3 Technical Report*，arXiv:2505.09388。
# 增长图的数据来源见 `data/published/growth.csv`。
#
# **下一篇：** [01 · 参数共享](01_parameter_sharing.ipynb)；
# 或直接去 [03 · 稀疏注意力](03_sparse_attention.ipynb)，看 n² 部分如何变成线性，
# 又要付出什么代价。
