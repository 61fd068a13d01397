# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 05 · Dynamic attention
#
# Two ideas are often lumped together. **Dynamic convolutions** replace attention with a short
# kernel whose weights are computed from the current token. **Adaptive attention spans** let every
# head learn how far back it looks. The article says of the first that it adapts the *range* of
# attention. Does it?
#
# | | |
# |---|---|
# | **Claim** | `dynamic-attention`: DynamicConv adapts the attention range to the input |
# | **Time** | 25 minutes; all cells together run in under 40 seconds, offline, without a GPU |
# | **Afterwards you can** | implement both techniques, tell weights that follow the input from a range that does, and say what each saves |

# %% [markdown] tags=["zh"]
# # 05 · 动态注意力
#
# 有两个想法常被混为一谈。**动态卷积**用一个很短的卷积核代替注意力，核的权重由当前 token 算出。
# **自适应注意力跨度**让每个头自己学会往回看多远。文章说前者能调整注意力的*范围*。真是这样吗？
#
# | | |
# |---|---|
# | **论断** | `dynamic-attention`：DynamicConv 随输入调整注意力范围 |
# | **用时** | 25 分钟；全部单元格合计运行不到 40 秒，无需联网，无需 GPU |
# | **学完之后** | 能实现这两种技术，分清“权重随输入变”与“范围随输入变”，并说出各自省下了什么 |

# %% tags=["parameters"]
language = "en"
kernel_size = 15  # tokens, of those in the record: 3, 7, 15 or 31
seq_len = 1024  # tokens, for the times, 512 to 4096
reach = 64  # keys that the widest head needs, for the times, 32 to 128
seed = 0  # of the training that is repeated here, 0 to 999999

# %%
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from efflab import estimate, lab, points, pretrained
from efflab.experiments import dynamic_attention as experiment
from efflab.experiments import dynamic_attention_2 as used_range
from efflab.experiments.record import agrees, by_seed, expected_repeat, read_record, same_python
from efflab.lab import check, explore, predict, show, table
from efflab.model import Transformer
from efflab.structure import adaptive_span, dynamic_conv

lab.use_language(language)

# %%
from efflab_rooms import texts
from efflab_rooms.dynamic_attention import exercises, figures, measure, verdicts

lab.use_notebook("05_dynamic_attention", exercises.EXERCISES, texts("dynamic_attention"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# A trained DynamicConv with a kernel of 15 tokens reads held-out source code. At each position most
# of its weight, say 90%, lies within some distance. If the range adapts to the input, another text
# has to give another distance at the same position. By how much do the two differ?

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 让一个训练好的、核宽为 15 个 token 的 DynamicConv 读留出集里的源码。在每个位置上，
# 大部分权重（比如 90%）落在某个距离以内。如果范围真的随输入调整，
# 那么换一段文本，同一位置上的这个距离就应当不同。相差多少？

# %%
difference = predict(
    "On average, by how many tokens does the distance that holds 90% of DynamicConv's weight "
    "differ between two texts at the same position?",
    unit="tokens",
)

# %% [markdown] tags=["en"]
# ## 2 · Build: a kernel in place of attention
#
# Self-attention compares each token with all others to find its weights. Wu et al. (2019) ask how
# much of that is needed. Each head h takes a weighted sum of the last k tokens, the current one
# included (the causal form, as in their decoder; their equation 1 is centred on i):
#
# $$y_i = \sum_{j=0}^{k-1} \mathrm{softmax}(w)_{h,j} \; x_{i-k+1+j}$$
#
# - **LightweightConv**: w is learned once and is the same at every position.
# - **DynamicConv**: w = W xᵢ is computed from the vector at the current position and from no other.
#
# All channels of a head share a kernel. Before it come a projection to twice the width and a gated
# linear unit; after it, an output projection. To compute the convolution fast, the kernels of a
# block of positions become one band matrix:

# %% [markdown] tags=["zh"]
# ## 2 · 实现：用卷积核代替注意力
#
# 自注意力让每个 token 与所有 token 比较，由此得到权重。Wu 等（2019）问：这里面有多少是必需的？
# 每个头 h 只对最近的 k 个 token（含自身）加权求和（这是解码器用的因果形式；论文的公式 1 以 i 为中心）：
#
# $$y_i = \sum_{j=0}^{k-1} \mathrm{softmax}(w)_{h,j} \; x_{i-k+1+j}$$
#
# - **LightweightConv**：w 学好就固定，每个位置都一样。
# - **DynamicConv**：w = W xᵢ，只由当前位置的向量算出，不看其他位置的向量。
#
# 同一个头的所有通道共用一个核。核之前是升到两倍宽度的投影加门控线性单元（GLU），之后是输出投影。
# 为了算得快，把一段连续位置的核摆成一个带状矩阵：

# %%
lab.show_source(dynamic_conv.band_matrix)
kernels = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
print(dynamic_conv.band_matrix(kernels))

# %% [markdown] tags=["en"]
# Row i holds position i's kernel, shifted one column to the right of the row above. The whole
# convolution is then one small matrix product per block of positions. The class below is what makes
# it dynamic:

# %% [markdown] tags=["zh"]
# 第 i 行就是位置 i 的核，每行比上一行右移一列。每段位置只需一次小矩阵乘法，卷积就算完了。
# 使它成为“动态”的，就是下面这个类：

# %%
lab.show_source(dynamic_conv.DynamicConv)

# %% [markdown] tags=["en"]
# `kernel_size` is a number in the constructor. Nothing computes it.
#
# ## 3 · Build: attention with a learned span
#
# Sukhbaatar et al. (2019) keep attention and give each head h a learned number z, its span. For a
# key x tokens back, the exponential of its score is multiplied by a soft mask before the softmax is
# normalized:
#
# $$m_z(x) = \mathrm{clamp}\left(\frac{R + z - x}{R},\ 0,\ 1\right) \qquad
# a_{ij} = \frac{m_z(i-j)\, e^{s_{ij}}}{\sum_q m_z(i-q)\, e^{s_{iq}}}$$
#
# The ramp of R tokens lets a gradient reach z: a head that misses something lengthens its span, and
# a penalty on z, added to the loss, makes every other head shorten its own.

# %% [markdown] tags=["zh"]
# `kernel_size` 只是构造函数里的一个数，没有任何代码去计算它。
#
# ## 3 · 实现：能学习跨度的注意力
#
# Sukhbaatar 等（2019）保留了注意力，给每个头 h 一个可学习的数 z，即它的跨度。
# 往回 x 个 token 的键，其指数项先乘上一个软掩码，再做 softmax 的归一化：
#
# $$m_z(x) = \mathrm{clamp}\left(\frac{R + z - x}{R},\ 0,\ 1\right) \qquad
# a_{ij} = \frac{m_z(i-j)\, e^{s_{ij}}}{\sum_q m_z(i-q)\, e^{s_{iq}}}$$
#
# 宽度为 R 的斜坡让梯度能传到 z：哪个头看得不够远，它的 z 就变大；损失里还加了对 z 的惩罚，让其余的头缩短跨度。

# %%
lab.show_source(adaptive_span.soft_mask)
show(figures.mask_figure())

# %% [markdown] tags=["en"]
# Keys that no head of a layer reaches are never computed: queries are cut into blocks, and each
# block sees a window of keys as wide as the widest head needs. The table shows one layer at
# `stdlib-gpt`'s width, by the formula and as counted by PyTorch while our code runs:

# %% [markdown] tags=["zh"]
# 一层里所有头都看不到的键根本不算：把查询切成块，每块只看一段键，宽度由看得最远的头决定。
# 取 `stdlib-gpt` 的宽度，一层的计算量如下，一列按公式，一列由 PyTorch 在代码运行时计数：

# %%
rows = []
for name, layer in measure.mixers(kernel_size, reach, seq_len).items():
    plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not see into the CPU's fused one
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, seq_len, measure.D_MODEL))
    formula = measure.flops_of(name, kernel_size, reach, seq_len)
    counted = counter.get_total_flops()
    row = {
        "technique": name,
        "MFLOP, formula": formula / 1e6,
        "MFLOP, counted": counted / 1e6,
        "ratio": counted / formula,
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# The few per cent above the formula are the corners of our blocks: the price of computing a band
# with dense products. Attention is counted with its full score matrix; a fused causal kernel skips
# most of the masked half. Does the time follow? Each technique is timed interleaved with
# self-attention, at a quarter of `seq_len`, at `seq_len`, and at twice that:

# %% [markdown] tags=["zh"]
# 比公式多出的百分之几是分块的边角：用稠密乘法算带状矩阵的代价。注意力按完整的分数矩阵计；
# 融合的因果内核会跳过被遮住的那一半中的大部分。耗时会跟着下降吗？
# 把各技术与自注意力交替计时，长度取 `seq_len` 的四分之一、`seq_len` 本身和它的两倍：

# %% tags=["nbval-ignore-output"]
table(measure.time_rows(kernel_size, reach, seq_len), kind="measured")

# %% [markdown] tags=["en"]
# Convolutions and short spans are linear in the length, so their cost relative to attention's falls
# as sequences grow. *measured / formula* is above 1 where copying blocks takes time that no FLOP
# count sees, and where attention's fused kernel skips scores that the formula counts. A ratio
# inside the A/A band of its length says nothing.
#
# ## 4 · Train them alike
#
# A saving means little without the quality. For this record, the same small model (4 layers, 4
# heads, 64 channels, windows of 128 tokens) was trained on Python's standard library with each
# technique: the same windows, optimizer and number of steps, three seeds. The loss is on modules
# that no model saw in training; with 95% confidence, one more seed would fall inside the interval.

# %% [markdown] tags=["zh"]
# 卷积和短跨度的计算量与长度成正比，所以序列越长，相对注意力的占比越低。“实测 / 公式”大于 1，
# 一是因为搬运数据块要花时间，FLOPs 里看不到；二是因为注意力的融合内核跳过了公式里计入的分数。
# 落在该长度 A/A 噪声带之内的比值说明不了什么。
#
# ## 4 · 同等条件下训练
#
# 只说省多少、不看质量，没有意义。下面的存档在 Python 标准库上，用每种技术各训练一遍同一个小模型
# （4 层、4 头、64 通道、窗口 128 个 token）：同样的窗口、优化器和步数，三个随机种子。
# 损失在模型从未见过的模块上计算；区间的含义是：再换一个种子，有 95% 的把握落在其中。

# %%
variants = experiment.by_variant()
rows = []
for spec in variants.values():
    low, high = spec["interval"]
    row = {
        "technique": measure.full_name(spec),
        "held-out loss (nats per token)": spec["loss"],
        "± (95%, for one more seed)": (high - low) / 2,
        "mixing layers (MFLOP per window)": spec["mixing_flops"] / 1e6,
        "parameters": spec["n_params"],
    }
    rows.append(row)
table(rows, kind="recorded")

# %% [markdown] tags=["en"]
# The same seed gives every technique the same windows, so differences are taken seed by seed; the
# interval here is that of their mean over the three seeds:

# %% [markdown] tags=["zh"]
# 同一个种子下，各技术用的窗口相同，因此逐种子求差；这里的区间是三个差的均值的区间：

# %%
attention_losses = variants["attention"]["losses"]
rows = []
for variant, spec in variants.items():
    if variant == "attention":
        continue
    seeds = sorted(attention_losses.keys() & spec["losses"].keys())
    here = [spec["losses"][s] for s in seeds]
    less = estimate.paired_difference(here, [attention_losses[s] for s in seeds])
    row = {
        "technique": measure.full_name(spec),
        "loss minus attention's (nats per token, paired by seed)": less.mean,
        "interval, low": less.low,
        "interval, high": less.high,
    }
    rows.append(row)
table(rows, kind="recorded")

# %% [markdown] tags=["en"]
# Read this with care: it is a short training run of a small model with absolute positions. In it,
# most of what there is to learn is about nearby tokens. A convolution gets nearness for free, while
# attention has to learn it. The record compares techniques at an equal, small budget and says
# nothing about large ones. Note which way the penalties move the loss: at this budget a shorter
# span *helps*.
#
# One point of the record, measured again here (this is the slowest cell):

# %% [markdown] tags=["zh"]
# 请谨慎解读：这是小模型的短训练，用绝对位置，此时要学的主要是邻近 token 的规律；
# 卷积天生就知道“邻近”，注意力却得从头学。它只在同样小的预算下比较各技术，不能推广到大预算。
# 还请留意惩罚使损失变大还是变小：在这样的预算下，跨度短反而*更好*。
#
# 下面在你的机器上重测存档中的一个点（这是最慢的一个单元格）：

# %% tags=["nbval-ignore-output"]
variant = f"dynamic-{kernel_size}"
model, result = experiment.train_variant(variant, seed)
losses = variants[variant]["losses"]
loss, spread = expected_repeat(losses, seed)
comparable = same_python(read_record(experiment.NAME))  # another Python has another library
before = {
    "DynamicConv": "recorded, this seed" if seed in losses else "recorded mean",
    "held-out loss (nats per token)": loss,
    "interval, low": loss - spread,
    "interval, high": loss + spread,
    "agrees": None,
    "kind": "recorded",
}
agreement = agrees(result["loss"], loss, spread if comparable else None)
now = {"DynamicConv": "trained here", "held-out loss (nats per token)": result["loss"]}
table([before, now | {"agrees": agreement, "kind": "measured"}])

# %% [markdown] tags=["en"]
# ## 5 · What follows the input, and what does not
#
# The model just trained reads two pieces of Python. These are its kernels at the same position, in
# the layer where they differ most:

# %% [markdown] tags=["zh"]
# ## 5 · 什么随输入变，什么不变
#
# 让刚训练好的模型读两段 Python。取同一个位置，在差别最大的那一层，它的卷积核是这样的：

# %% tags=["nbval-ignore-output"]
show(figures.kernel_figure(model))

# %% [markdown] tags=["en"]
# The weights do follow the input. The axis does not: it ends at the kernel's width. That was one
# position, in the layer that differs most. Now take all heads and the later halves of 32 pieces of
# held-out source: how far back does 90% of the weight lie?

# %% [markdown] tags=["zh"]
# 权重确实随输入变化，但横轴不会变：它到核宽为止。这只是一个位置、差别最大的那一层；
# 下面取 32 段留出集源码各自的后一半，以及所有的头：90% 的权重落在往回多远之内？

# %% tags=["nbval-ignore-output"]
trained = measure.ranges_of(model.eval())
show(figures.distance_figure(trained, kernel_size))
pairs = used_range.between_texts(trained)
difference.reveal(sum(pairs) / len(pairs))

# %% [markdown] tags=["en"]
# So the *used* part of the kernel moves. But does the input move it, and does it move much? Two
# controls must show nothing, by construction: a LightweightConv, whose weights are fixed, and
# attention that weighs all visible tokens alike. The same DynamicConv before training does look at
# its input, but so weakly that nothing should show in whole tokens. One control must show
# something: the attention of `stdlib-gpt`, which everyone would call adaptive.

# %% [markdown] tags=["zh"]
# 可见，核中*用到*的那一部分确实在变。但使它变的是输入吗？变得算多吗？有两个对照按构造就应当毫无变化：
# 权重固定的 LightweightConv、对所有可见 token 一视同仁的均匀注意力。训练之前的同一个 DynamicConv 虽然看输入，
# 但受输入的影响极弱，按整数 token 计应当看不出变化。还有一个则必须看得出变化：`stdlib-gpt` 的注意力，它的自适应是公认的。

# %% tags=["nbval-ignore-output"]
base = pretrained.load_stdlib_gpt()
untrained = experiment.make_model(variant, seed).eval()
torch.manual_seed(0)
shape = experiment.CONFIG.d_model, experiment.CONFIG.n_head, kernel_size
lightweight = dynamic_conv.replace_attention(
    Transformer(experiment.CONFIG), lambda _: dynamic_conv.LightweightConv(*shape)
)
attention = measure.ranges_of(base, n_texts=12)
distances = {
    "DynamicConv, trained": trained,
    "DynamicConv, untrained": measure.ranges_of(untrained),
    "LightweightConv": measure.ranges_of(lightweight.eval()),
    "uniform attention, blind to its input": measure.uniform_ranges(base.config.max_len),
    "stdlib-gpt's attention": attention,
    "stdlib-gpt's attention, detrended by position": measure.without_trend(attention),
}

# %% tags=["nbval-ignore-output"]
rows = []
for name, tokens in distances.items():
    pairs = used_range.between_texts(tokens)
    apart = estimate.paired_difference(pairs, [0.0] * len(pairs))
    width = kernel_size if "Conv" in name else base.config.max_len
    row = {
        "technique": name,
        "width (tokens)": width,
        "5th–95th percentile spread (tokens)": measure.spread(tokens),
        "5th–95th percentile spread (% of width)": 100 * measure.spread(tokens) / (width - 1),
        "difference between two texts (tokens)": apart.mean,
        "interval, low": apart.low,
        "interval, high": apart.high,
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Read the columns from left to right.
#
# - As a *share* of the width, DynamicConv moves about as much as attention, but that compares some
#   3 tokens of 15 (the default width) with more than 100 of 512.
# - The percentiles do not say what moves the range. Attention is read in the later half of its
#   window, where the number of visible keys doubles. So uniform attention, which looks at nothing,
#   moves more than any other technique (0.9 x 0.9 / 2 of the width, by position alone). Subtracting
#   the trend helps.
# - Comparing two texts **at the same position** settles it. What does not look at its input differs
#   by 0 tokens; so, in whole tokens, does the untrained DynamicConv, which hardly looks. The rest
#   is the input's doing. The interval is over pairs of texts, since positions of one text are not
#   independent samples.
#
# By this measure, the DynamicConv trained here adapts the range that it uses, by a token or so, and
# it learned to.
#
# That is one training run. The record has five; each seed has its own models and its own 64 texts,
# so an interval over seeds covers both. Its rule was registered before it was run, together with a
# *positive control*: attention, trained in the same way, has to differ by more than one token
# (`stdlib-gpt`'s above does), or this part of the claim stays undecided.

# %% [markdown] tags=["zh"]
# 从左往右看各列。按*占比*，DynamicConv 的变化与注意力相近，但这是拿 15 个 token（默认核宽）中的 3 个左右，与 512 个中的一百多个相比。
# 百分位也没有说明是什么在改变范围：注意力取的是窗口后半段，可见的键数在这一段里翻了一倍，所以什么也不看的均匀注意力
# 变化反而最大（仅凭位置就达到宽度的 0.9 × 0.9 / 2）。减去随位置的趋势会好一些；在**同一位置**上比较两段文本才有定论：
# 不看输入的，相差 0 个 token（几乎不看输入的，即未训练的那个，按整数 token 计也是 0）；其余的差异才是输入造成的。区间按文本对计算，因为同一段文本的各个位置并非独立样本。
# 照这个标准，刚才训练的 DynamicConv 确实在调整它用到的范围，幅度约一个 token，而且这是学来的。
#
# 这只是一次训练。存档里有五次，每个种子都有自己的模型和自己的 64 段文本，所以种子之间的区间涵盖了两者。
# 它的规则在运行之前就已登记，其中有一个*阳性对照*：同样训练的注意力，相差须超过一个 token
# （上表中 `stdlib-gpt` 的注意力满足），否则这一部分未定。

# %%
runs = read_record(used_range.NAME)["runs"]
apart, losses = used_range.cases(runs), by_seed(runs, "mixer", "loss")
techniques = {
    "dynamic": "DynamicConv, trained",
    "untrained": "DynamicConv, untrained",
    "fixed": "LightweightConv",
    "attention": "attention, trained the same way",
}
rows = []
for mixer, technique in techniques.items():
    tokens = apart[f"range-{mixer}"]
    row = {
        "technique": technique,
        "difference between two texts (tokens)": tokens.mean,
        "interval, low": tokens.low,
        "interval, high": tokens.high,
        "held-out loss (nats per token)": sum(losses[mixer]) / len(losses[mixer]),
    }
    rows.append(row)
table(rows, kind="recorded")

# %% tags=["nbval-ignore-output"]
live, recorded, spread = measure.repeat_used_range(model, kernel_size, seed)
row = {"technique": "DynamicConv, trained here", "difference between two texts (tokens)": live}
row |= {"recorded": recorded, "may differ by": spread}
table([row | {"agrees": agrees(live, recorded, spread)}], kind="measured")

# %% [markdown] tags=["en"]
# **The control fails.** DynamicConv differs by 1.17 tokens (0.945 to 1.39), and untrained by none.
# But attention, trained as briefly, differs by only 0.679 (0.54 to 0.817): less than DynamicConv,
# and less than the one token that the rule requires. By that rule, fixed before these numbers, this
# part is *undecided*, although DynamicConv's number lies far from 0.
#
# The control was badly chosen. After 250 steps, attention of this size has the highest loss of the
# three trained mixers, and differs far less than `stdlib-gpt`'s. That model is larger, has a window
# four times as long and was trained for longer; which of these matters was not tested. A new rule
# with new seeds and a better control could decide it. Moving the bar now, in sight of the numbers,
# could not.

# %% [markdown] tags=["zh"]
# **对照没有通过。** DynamicConv 相差 1.17 个 token（0.945 至 1.39），未训练时为零；但同样只训练了 250 步的注意力
# 只相差 0.679 个（0.54 至 0.817），既小于 DynamicConv，也达不到规则要求的一个 token。
# 因此，照这些数字出现之前就定下的规则，这一部分*未定*，尽管它自己的数字离 0 很远。
# 对照选得不好：250 步之后，这么小的注意力在三种训练过的混合层中损失最高，变动也远小于 `stdlib-gpt` 的注意力；
# 后者的模型更大，窗口是前者的四倍，训练也更久；究竟哪一点起作用，没有检验。另立规则、换用新的种子和更好的对照，才可能有定论；现在看着数字再去挪动界限，得不出结论。

# %% [markdown] tags=["en"]
# The *reach* is another matter. Here no formula is used, only the gradient: for two random inputs,
# how far back is the farthest token that the last output depends on at all?

# %% [markdown] tags=["zh"]
# *所及范围*则是另一回事。不看公式，只看梯度：对两段随机输入，最后一个输出最远能依赖到哪个 token？

# %%
spans_by_seed = measure.span_record(penalty=1e-5)["spans"]
reaches = measure.reaches(kernel_size, spans_by_seed[0][0])  # of the first layer's heads
rows = [
    {
        "technique": name,
        "weights": "fixed" if name == "LightweightConv" else "follow the input",
        "farthest back, input A (tokens)": a,
        "farthest back, input B (tokens)": b,
        "range": "fixed" if a == b else "follows the input",
    }
    for name, (a, b) in reaches.items()
]
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# By this measure even attention is "fixed": softmax weights are never zero. Several things are
# called dynamic:
#
# - **weights** that follow the input, and with them, after training, the *used* range: attention and
#   DynamicConv, but not LightweightConv;
# - a **reach** that training sets, head by head, and that is then the same for every input:
#   adaptive span;
# - a reach that follows the input: only the last row, the extension that Sukhbaatar et al. call
#   *dynamic attention span*, where z is computed from the token.
#
# ## 6 · Spans by head and layer
#
# In the record all spans start at half of the window (the paper's start at 0, with relative
# positions) and the ramp is 16 tokens (the paper's: 32); training moves the spans. Without a
# penalty some spans lengthen and others shorten; with a penalty only a span that pays for itself
# stays long. In the paper's 12-layer model, trained for long, the lowest layers keep the shortest
# spans, and a few heads of the higher layers keep very long ones; see which layers have the long
# spans in this small model. The figure shows seed 0, the table the mean of all three seeds; a head
# *needs* its span plus the ramp.

# %% [markdown] tags=["zh"]
# 照这个标准，注意力自己也是“固定”的：softmax 权重从不为零。被称作“动态”的其实是几件不同的事：
#
# - **权重**随输入变，训练之后*用到的*范围也随之变：注意力和 DynamicConv 如此，LightweightConv 不然；
# - **所及范围**由训练逐头确定，之后对任何输入都一样：自适应跨度；
# - 所及范围随输入变：只有最后一行，即 Sukhbaatar 等所说的*动态注意力跨度*，z 由 token 算出。
#
# ## 6 · 各层各头的跨度
#
# 存档中所有跨度都从窗口的一半起步（论文从 0 起步，用相对位置），斜坡宽 16 个 token（论文为 32），由训练来改变跨度。
# 没有惩罚时，有的头变长，有的头变短；加上惩罚，只有值得的头才保持长跨度。论文的 12 层模型训练得久：最低几层的跨度最短，
# 较高的层里有少数几个头的跨度很长；请看这个小模型里，长跨度的头在哪几层。图中是种子 0，表中是三个种子的平均；
# 一个头“需要的键”是跨度加斜坡。

# %%
show(figures.recorded_spans_figure())

# %%
rows = []
for penalty in measure.PENALTIES:
    spec, n_keys = measure.span_record(penalty), experiment.CONFIG.max_len
    needs = torch.tensor(spec["spans"]) + experiment.RAMP
    computed = torch.tensor(spec["reach"]).float()
    row = {
        "penalty (nats per token of span)": measure.penalty_name(penalty),
        "keys that an average head needs (%)": 100 * needs.clamp_max(n_keys).mean().item() / n_keys,
        "keys computed, widest head of each layer (%)": 100 * computed.mean().item() / n_keys,
    }
    rows.append(row)
table(rows, kind="recorded")

# %% [markdown] tags=["en"]
# *needs* and *computed* differ, and the time depends on what is computed: a layer computes as many
# keys as its *widest* head needs, so one far-sighted head makes its neighbours pay.
#
# ## 7 · A trained model's spans
#
# All 36 heads of `stdlib-gpt` can look back 512 tokens. We leave its weights as they are, put a
# wide-open span around each head, and learn these 36 numbers alone for 20 steps of Adam (a step
# moves a span by at most 0.08 × 512 = 41 tokens). The penalty is 10⁻⁴ nats for every token of a
# layer's mean span.

# %% [markdown] tags=["zh"]
# “需要的键”与“实际计算的键”并不相等，而时间取决于后者：一层要算多少键，由看得*最远*的头决定，
# 一个看得远的头会让同层的其他头一起多算。
#
# ## 7 · 训练好的模型的跨度
#
# `stdlib-gpt` 的 36 个头都能往回看 512 个 token。权重原样不动，给每个头套上一个完全张开的跨度，
# 只学习这 36 个数，共 20 步 Adam（每步最多移动 0.08 × 512 = 41 个 token），惩罚按每层的平均跨度计，每个 token 10⁻⁴ nat。

# %%
average = predict(
    "Out of 512 tokens, what is the mean span z of stdlib-gpt's heads after these 20 steps?",
    unit="tokens",
)

# %% tags=["nbval-ignore-output"]
shortened = measure.learn_spans(pretrained.load_stdlib_gpt())
quality = points.language_quality(shortened)
spans = adaptive_span.learned_spans(shortened).detach()
floor = measure.span_floor(shortened.config.max_len)
at_floor = int((spans < floor + 1).sum())
ends = {"interval, low": quality.low, "interval, high": quality.high}
rows = [
    {"quantity": "mean span (tokens)", "value": spans.mean().item()} | dict.fromkeys(ends),
    {"quantity": "shortest span that these steps can reach (tokens)", "value": floor},
    {"quantity": "heads at that span / all heads", "value": f"{at_floor} / {spans.numel()}"},
    {"quantity": "bits per byte", "value": quality.mean} | ends,
]
table(rows, kind="measured")
show(figures.span_figure(shortened))

# %% tags=["nbval-ignore-output"]
average.reveal(spans.mean().item())
lab.board.add(technique="adaptive span", **points.language_point(shortened, quality=quality))

# %% [markdown] tags=["en"]
# The table says what the heads give up; the cost is the difference from the board's first row, in
# bits per byte. Heads at the shortest span that 20 steps can reach were still shrinking: the mean
# is what so many steps leave, not what the heads need. More steps would shorten it, at a price that
# is not measured here.
#
# The time need not fall either (see *time (x baseline)* on the board; above 1 is slower than
# before). At 512 tokens, attention's quadratic part is about 30% of the arithmetic in this model's
# layers, and the fused causal kernel already skips almost half of that. The widest head of each
# layer decides, and the soft mask itself costs something. Spans pay off in long sequences.
#
# ## 8 · Explore
#
# On the left is the record: loss against arithmetic, with the two chosen points enlarged. On the
# right are the same two layers in longer sequences, with the spans as learned in windows of 128
# tokens (trained on longer windows, they may grow). Widen the kernel: where does the loss stop
# falling? Raise the penalty: what do the saved FLOPs cost, if anything? Then move the length to
# 8,192.

# %% [markdown] tags=["zh"]
# 表中是各头放弃了多少；付出的代价，要看每字节比特数与总榜第一行之差。有些头停在 20 步所能达到的最短值上，它们当时还在缩短：
# 均值是这么多步之后剩下的跨度，不是各头真正需要的跨度。步数再多，跨度还会更短，代价如何，这里没有测。
# 耗时也未必下降（见总榜的“耗时（基线的倍数）”，大于 1 就是更慢）：512 个 token 时，注意力中随长度平方增长的部分约占本模型各层计算量的三成，
# 其中近一半已被融合的因果内核跳过；每层由看得最远的头说了算，软掩码自己也要花时间。跨度的好处要到长序列里才显出来。
#
# ## 8 · 探索
#
# 左图是存档：损失与计算量，选中的两个点放大显示。右图是这两种层在更长序列里的开销，
# 跨度沿用在 128 个 token 的窗口里学到的值（在更长的窗口里训练，跨度可能变长）。
# 加宽卷积核：损失从哪里起不再下降？加大惩罚：省下的 FLOPs 要付出代价吗？再把长度拉到 8,192 看看。

# %%
explore(figures.range_or_width)

# %% [markdown] tags=["en"]
# ## 9 · Where it breaks
#
# **Beyond the kernel there is nothing.** Stacking widens the view: every layer adds
# (kernel width − 1) tokens. That is all: what lies further back cannot influence the output,
# however important it is. The table compares the formula with the gradient through four layers:

# %% [markdown] tags=["zh"]
# ## 9 · 何时失效
#
# **核外的内容看不到。** 多叠几层可以拓宽视野，每层多看（核宽减一）个 token，但仅此而已：
# 更远处的内容再重要，也影响不了输出。下表一列按公式，一列由穿过四层的梯度测得：

# %%
rows = []
for width in (3, 7, 15, 31):
    torch.manual_seed(0)
    stack = nn.Sequential(*(dynamic_conv.DynamicConv(16, 4, width) for _ in range(4))).double()
    by_gradient = measure.farthest(stack, torch.randn(1, 160, 16, dtype=torch.double))
    formula = 4 * (width - 1)
    row = {
        "kernel width (tokens)": width,
        "layers x (width - 1)": formula,
        "farthest back, by gradient (tokens)": by_gradient,
        "ratio": by_gradient / formula,
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# - **The kernel is predicted blindly.** A layer computes it from the vector at the current position
#   alone, without comparing that vector with any other: it cannot look for a matching bracket. From
#   the second layer on, that vector contains what the layers before have mixed in from nearby
#   tokens, and no more.
# - **A span is not a need.** A head keeps its span even where the input has nothing that far back.
#   And once training has shortened a span, it stays short when an input needs more.
# - **Trimming is by layer.** A kernel that took each head's own span would compute only the share
#   of keys that heads *need* in section 6's table; ours computes the share in column *keys computed*.
#
# ## 10 · Verdict

# %% [markdown] tags=["zh"]
# - **算核时不看别处。** 每层只用当前位置的向量算出核，不与其他位置比较，因此无法去找配对的括号。
#   从第二层起，这个向量里有前面各层从邻近 token 混入的信息，仅此而已。
# - **跨度不等于需要。** 即使某段输入远处什么也没有，头的跨度照旧；
#   而跨度一旦被训练缩短，遇到真正需要长跨度的输入时也不会变长。
# - **裁剪以层为单位。** 若内核能按每个头各自的跨度计算，只需算第 6 节表中“需要的键”那一列的比例；
#   现在算的是“实际计算的键”那一列的比例。
#
# ## 10 · 结论

# %% tags=["nbval-ignore-output"]
evidence = verdicts.dynamic_evidence(reaches, apart)
lab.verdict("dynamic-attention", verdicts.dynamic_attention(evidence))

# %% [markdown] tags=["en"]
# ## 11 · Exercises
#
# **05-1.** Compute DynamicConv's output at position `i`: `values` (T, C) are the gated inputs,
# `kernels` (T, H, k) the normalized kernels of all positions. Return the C numbers.
#
# <details><summary>Hint</summary>Tap j reads token i - k + 1 + j; taps before the start add nothing. Give each head's kernel to its C / H neighbouring channels.</details>

# %% [markdown] tags=["zh"]
# ## 11 · 练习
#
# **05-1.** 写出 DynamicConv 在位置 `i` 的输出：`values` (T, C) 是门控后的输入，
# `kernels` (T, H, k) 是每个位置归一化后的核。返回 C 个数。
#
# <details><summary>提示</summary>核的第 j 个权重读的是第 i - k + 1 + j 个 token；落在开头之前的没有贡献。每个头的核用于它的 C / H 个相邻通道。</details>


# %% tags=["exercise", "ex-05-1"]
def output_at(values, kernels, i):
    return ...


# %%
check("05-1", output_at)

# %% [markdown] tags=["solution", "ex-05-1"]
# <details><summary>Solution</summary>
#
# ```python
# def output_at(values, kernels, i):
#     H, k = kernels.shape[1:]
#     y = torch.zeros(values.shape[1])
#     for j in range(k):
#         if i - k + 1 + j >= 0:
#             weights = kernels[i, :, j].repeat_interleave(values.shape[1] // H)
#             y += weights * values[i - k + 1 + j]
#     return y
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **05-2.** A layer's heads have learned these `spans`. How many keys have to be computed for each
# query, given the ramp and the largest span allowed?
#
# <details><summary>Hint</summary>Count the distances 0, 1, 2, ... at which the widest head's mask is above zero.</details>

# %% [markdown] tags=["zh"]
# **05-2.** 某层各头学到的跨度是 `spans`。给定斜坡宽度 `ramp` 和允许的最大跨度 `max_span`，
# 每个查询要与多少个键做计算？
#
# <details><summary>提示</summary>对看得最远的头，数一数在距离 0、1、2……中，有几个距离的掩码大于零。</details>


# %% tags=["exercise", "ex-05-2"]
def keys_computed(spans, ramp, max_span):
    return ...


# %%
check("05-2", keys_computed)

# %% [markdown] tags=["solution", "ex-05-2"]
# <details><summary>Solution</summary>
#
# ```python
# import math
#
#
# def keys_computed(spans, ramp, max_span):
#     return min(math.ceil(max(spans) + ramp), max_span)  # the mask is 0 from span + ramp on
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **05-3.** A variable is used `distance` tokens after its definition. What is the smallest kernel
# with which a stack of `n_layer` DynamicConv layers can connect the two?
#
# <details><summary>Hint</summary>Each layer adds kernel - 1 tokens. Round up.</details>

# %% [markdown] tags=["zh"]
# **05-3.** 一个变量在定义之后 `distance` 个 token 处被使用。`n_layer` 层 DynamicConv 堆叠起来，
# 核宽至少要多少才能把两者联系起来？
#
# <details><summary>提示</summary>每层多看（核宽 - 1）个 token。向上取整。</details>


# %% tags=["exercise", "ex-05-3"]
def smallest_kernel(n_layer, distance):
    return ...


# %%
check("05-3", smallest_kernel)

# %% [markdown] tags=["solution", "ex-05-3"]
# <details><summary>Solution</summary>
#
# ```python
# def smallest_kernel(n_layer, distance):
#     return -(-distance // n_layer) + 1  # -(-a // b) rounds up
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **05-4 (target: beat the same width in every layer).** A window of 64 tokens in each of
# `stdlib-gpt`'s six layers costs 0.36 bits per byte, without retraining, on the 8 held-out excerpts
# that the check uses (in notebook 03: 0.45 on the board's 16, 0.406 on the record's random ones).
# Find six windows, written as `answer_4 = [64, 64, 64, 64, 64, 64]`, whose mean is at most 64 and
# that cost at most 0.25.
#
# <details><summary>Hint</summary>Section 7's figure shows the spans that each layer kept. Take from
# the middle layers, and give to the first and the last layer.</details>

# %% [markdown] tags=["zh"]
# **05-4（挑战题：胜过一刀切的宽度）。** `stdlib-gpt` 的六层若都用宽 64 的窗口，不再训练，在检查所用的 8 段留出文本上，每字节要多 0.36 比特（第 03 篇：总榜所用的 16 段上为 0.45，存档随机抽取的片段上为 0.406）。
# 请给出六个窗口，写成 `answer_4 = [64, 64, 64, 64, 64, 64]` 的形式，平均不超过 64，使代价不超过 0.25。
#
# <details><summary>提示</summary>第 7 节的图里有各层留下的跨度。从中间各层匀出一些，给第一层和最后一层。</details>

# %% tags=["exercise", "ex-05-4"]
answer_4 = ...  # six windows in tokens

# %%
check("05-4", answer_4)

# %% [markdown] tags=["en", "solution", "ex-05-4"]
# <details><summary>Solution</summary>
#
# ```python
# answer_4 = [152, 48, 16, 24, 32, 112]
# ```
#
# It costs 0.21 bits per byte, and was found by moving a few tokens from one layer to another as
# long as that helped. The model was trained for neither choice of windows; it needs its range in
# the first and the last layer.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-05-4"]
# <details><summary>答案</summary>
#
# ```python
# answer_4 = [152, 48, 16, 24, 32, 112]
# ```
#
# 代价是每字节 0.21 比特；办法是从一层挪几个 token 给另一层，有改进就保留。这两种窗口，模型都没有专门训练过；它需要长范围的，是首尾两层。
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - DynamicConv computes its *weights* from the token; its *reach* is `kernel_size` for every input,
#   and layers x (kernel_size - 1) in a stack. Within that reach, the range that it uses differed by
#   a token or so from text to text; since the registered rule's control failed, this stays
#   undecided.
# - Shares of different widths are not comparable, and a range may move by position alone: compare
#   two texts at the same position, in tokens.
# - Adaptive span learns a range for each head; after training it is the same for every input. Only
#   its dynamic extension lets the input decide.
# - Both are linear in the length, spans only as long as they do not grow with it. How much spans
#   save depends on the widest head of each layer.
#
# **References.** Wu et al. 2019, *Pay Less Attention with Lightweight and Dynamic Convolutions*,
# arXiv:1901.10430. Sukhbaatar et al. 2019, *Adaptive Attention Span in Transformers*,
# arXiv:1905.07799. The records are `data/experiments/dynamic-attention.json` and
# `dynamic-attention-2.json`.
#
# **Next:** [06 · Mixed precision](06_mixed_precision.ipynb), where the structure stays and the numbers
# get shorter.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - DynamicConv 由 token 算出*权重*；它的*所及范围*就是 `kernel_size`，对任何输入都一样，
#   堆叠后是层数 ×（`kernel_size` - 1）。在此之内，它用到的范围因文本而异，相差约一个 token；
#   由于已登记规则的对照没有通过，这一点仍然未定。
# - 宽度不同，占比就没有可比性；范围也可能只因位置而变：要按 token 数、在同一位置上比较两段文本。
# - 自适应跨度为每个头学习一个范围，训练之后对任何输入都一样。只有它的动态扩展才由输入决定。
# - 两者的计算量都与长度成正比（对自适应跨度，前提是跨度不随长度变长）。跨度能省多少，取决于每层看得最远的头。
#
# **参考文献。** Wu 等 2019，*Pay Less Attention with Lightweight and Dynamic Convolutions*，
# arXiv:1901.10430。Sukhbaatar 等 2019，*Adaptive Attention Span in Transformers*，
# arXiv:1905.07799。存档见 `data/experiments/dynamic-attention.json` 和 `dynamic-attention-2.json`。
#
# **下一篇：** [06 · 混合精度](06_mixed_precision.ipynb)：结构不动，缩短每个数的位宽。
