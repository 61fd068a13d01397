# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 06 · Mixed precision
#
# A 16-bit number takes half the space of a 32-bit one, and tensor cores multiply it faster. So,
# says the article (section 2.1), mixed precision halves memory and makes an A100 three times as
# fast. We take a number apart bit by bit, watch gradients fall below fp16's floor, count every byte
# of a real training step, and ask: half of *what*, and three times faster than *what*?
#
# | | |
# |---|---|
# | **Claims** | `amp-memory`, `amp-speed` |
# | **Time** | 40 minutes; all cells together run in under 60 seconds, offline, without a GPU |
# | **Afterwards you can** | round a number to any format by hand; say why fp16 needs loss scaling and bf16 does not; write a training loop with today's `torch.amp`; account for every byte of training; tell an honest speed-up from one over a slow baseline |

# %% [markdown] tags=["zh"]
# # 06 · 混合精度
#
# 16 比特的数只占 32 比特的一半空间，Tensor Core 算起来也更快。于是文章（第 2.1 节）说：
# 混合精度让显存占用减半，在 A100 上的速度达到 3 倍。本篇先把一个数逐位拆开，再看梯度怎样跌破 fp16 的下限，
# 然后逐字节清点一个真实的训练步，最后追问：减半的是*什么*？3 倍是与*谁*相比？
#
# | | |
# |---|---|
# | **论断** | `amp-memory`、`amp-speed` |
# | **用时** | 40 分钟；全部单元格合计运行不到 60 秒，无需联网，无需 GPU |
# | **学完之后** | 能手工把一个数舍入到任意格式；能说清为什么 fp16 需要损失缩放而 bf16 不需要；能用如今的 `torch.amp` 写训练循环；能算清训练的每一个字节；能分辨加速比的基线是否公道 |

# %% tags=["parameters"]
language = "en"
batch_size = 4  # sequences in the measured training step, 1 to 16
seq_len = 128  # tokens per sequence, 32 to 512
n_steps = 30  # steps in fp16 with a scaler, 12 to 100
seed = 0  # of the training run repeated here, 0 to 1000

# %%
import numpy as np
import torch

from efflab import bench, lab, points, train
from efflab.acceleration.precision import FORMATS, TORCH_DTYPES, FloatFormat, every_value
from efflab.config import PRESETS
from efflab.lab import board, check, explore, predict, show, show_source, table
from efflab.model import Transformer
from efflab_rooms import texts
from efflab_rooms.mixed_precision import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("06_mixed_precision", exercises.EXERCISES, texts("mixed_precision"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# `torch.amp.autocast` runs matrix products (matmuls) in bf16. By how much does that shrink the
# memory of a training step of `stdlib-gpt` on `batch_size` x `seq_len` tokens (4 x 128 by default),
# counting weights, gradients, Adam's state and activations together? And how many times faster did
# NVIDIA itself train BERT-large on an A100 with mixed precision than without (one card, 128
# tokens)?

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# `torch.amp.autocast` 用 bf16 做矩阵乘法。把权重、梯度、Adam 的状态和激活值加在一起，
# `stdlib-gpt` 在 `batch_size` × `seq_len` 个 token（默认 4 × 128）上的一个训练步会少占多少内存？NVIDIA 自己在 A100 上训练 BERT-large（单卡，128 个 token），
# 用混合精度时的速度又是不用时的多少倍？

# %%
p_memory = predict("What percentage of a training step's memory does autocast save?", "%")

# %%
p_speed = predict("How many times faster did BERT-large train in mixed precision on an A100?", "x")

# %% [markdown] tags=["en"]
# ## 2 · A number's bits
#
# A floating-point number consists of a sign, an exponent (which power of two it starts from) and a
# mantissa (how far it lies towards the next one). The exponent bits set the *range*, the mantissa
# bits the *precision*.

# %% [markdown] tags=["zh"]
# ## 2 · 一个数的各个位
#
# 浮点数由符号、指数（从哪个 2 的幂起）和尾数（朝下一个幂走了多远）组成。
# 指数位决定*范围*，尾数位决定*精度*。

# %%
rows = [
    {
        "format": name,
        "bits": f.bits,
        "exponent": f.exponent_bits,
        "mantissa": f.mantissa_bits,
        "largest": f.max,
        "smallest normal": f.smallest_normal,
        "smallest": f.smallest,
        "max error (%)": 50 * f.epsilon,
    }
    for name, f in FORMATS.items()
]
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# The maximum error applies to normal numbers; below the smallest one it grows. tf32 has 19 bits and
# no dtype of its own in torch: tensors stay in fp32, and tensor cores read only that many of their
# bits. bf16 is the upper half of fp32; fp16 gives three exponent bits to the mantissa.
#
# Move the power of ten. At which power does fp16 start to lose bits, and at which does it lose
# everything? Which of the two 8-bit formats holds out longer, and what does it give up for that?

# %% [markdown] tags=["zh"]
# 最大误差针对正规数；小于最小正规数时误差会变大。
# tf32 有 19 比特，在 torch 里没有自己的类型：张量仍按 fp32 存放，Tensor Core 只取其中 19 比特。
# bf16 就是砍掉后一半的 fp32；fp16 则从指数里拿出三位给了精度。
#
# 请拖动 10 的幂次。到哪里 fp16 开始丢位，到哪里全部丢光？两种 8 比特格式中哪一种撑得更久，代价是什么？

# %%
explore(figures.bits_of, frames=19)

# %% [markdown] tags=["en"]
# ### Your turn: rounding
#
# **06-1.** Write `answer_1(x, exponent_bits, mantissa_bits)`, which rounds a Python float x to the
# nearest number of that format, ties to even. Below the smallest normal number, the spacing is
# fixed. No x here is too large for the format.
#
# <details><summary>Hint</summary>Around x, neighbours are 2^(exponent − mantissa_bits) apart.
# <code>math.frexp(x)[1] - 1</code> is x's exponent; the exponent of the smallest normal
# number is 2 − 2^(exponent_bits − 1). Python's <code>round</code> sends ties to even.</details>

# %% [markdown] tags=["zh"]
# ### 动手：舍入
#
# **06-1.** 为 Python 浮点数写出 `answer_1(x, exponent_bits, mantissa_bits)`：该格式中离 x 最近的数，
# 恰在正中时取偶数。小于最小正规数（normal）的数按固定步长排列。这里没有过大的数。
#
# <details><summary>提示</summary>在 x 附近，相邻两数相距 2^(指数 − 尾数位数)。
# <code>math.frexp(x)[1] - 1</code> 就是 x 的指数；最小正规数的指数是 2 − 2^(指数位数 − 1)。
# Python 的 <code>round</code> 遇到正中时取偶数。</details>

# %% tags=["exercise", "ex-06-1"]
answer_1 = ...  # def answer_1(x, exponent_bits, mantissa_bits): return ...

# %%
check("06-1", answer_1)

# %% [markdown] tags=["solution", "ex-06-1"]
# <details><summary>Solution</summary>
#
# ```python
# import math
#
#
# def answer_1(x, exponent_bits, mantissa_bits):
#     exponent = max(math.frexp(x)[1] - 1, 2 - 2 ** (exponent_bits - 1))
#     step = 2.0 ** (exponent - mantissa_bits)
#     return round(x / step) * step
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Our version handles whole tensors, and also numbers that are too large:

# %% [markdown] tags=["zh"]
# 我们的写法，处理整个张量，也处理过大的数：

# %%
show_source(FloatFormat.cast)

# %% [markdown] tags=["en"]
# Does it agree with torch? We run all 65,536 bit patterns of fp16 and of bf16, and half a million
# random bit patterns of fp32, through both:

# %% [markdown] tags=["zh"]
# 与 torch 一致吗？fp16 和 bf16 的全部 65,536 种位模式，再加上 50 万个随机的 fp32 位模式，两边各过一遍：

# %%
rng = torch.Generator().manual_seed(0)
patterns = torch.cat([every_value(name).float() for name in ("fp16", "bf16")])
bits = torch.randint(-(2**31), 2**31, (500_000,), generator=rng).to(torch.int32)
x = torch.cat([patterns, bits.view(torch.float32)])
rows = []
for name, dtype in TORCH_DTYPES.items():
    ours, theirs = FORMATS[name].cast(x), x.to(dtype).float()
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    row = {
        "format": name,
        "16-bit patterns": len(patterns),
        "random fp32 patterns": len(bits),
        "differ from torch": (~same).sum().item(),
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Conventions differ on numbers that are **too large**. fp16, bf16 and e5m2 have an infinity. e4m3fn
# uses that code for ordinary numbers: torch *saturates*, that is, returns the largest number. The
# OCP standard describes this and an alternative, in which e4m3 becomes NaN. Under torch's
# convention, code that waits for an infinity to detect an overflow detects nothing:

# %% [markdown] tags=["zh"]
# **过大的数**怎么办，各家约定不同。fp16、bf16、e5m2 有无穷大；e4m3fn 把那个编码让给了普通的数：
# torch 的做法是*饱和*，取最大值。OCP 标准除此之外还描述了另一种做法：e4m3 变成 NaN。
# 靠出现无穷大来发现溢出的代码，在 torch 的做法下什么也发现不了：

# %%
values = torch.tensor([448.0, 464.0, 465.0, 1e5, float("inf")])
rows = []
for name in ("fp8_e4m3fn", "fp8_e5m2"):
    columns = {
        "value": values,
        "torch": values.to(TORCH_DTYPES[name]).float(),
        "OCP, saturating": FORMATS[name].cast(values, saturate=True),
        "OCP, non-saturating": FORMATS[name].cast(values, saturate=False),
    }
    for i in range(len(values)):
        row = {header: column[i].item() for header, column in columns.items()}
        rows.append({"format": name, **row})
table(rows, digits=6, kind="computed")

# %% [markdown] tags=["en"]
# ## 3 · What became of it: blocks that share a scale
#
# Four bits, one of them the sign, cover magnitudes from 0.5 to 6. That is enough if neighbouring
# values are similar in size and have a scale of their own: **MX formats** (OCP 2023) give every 32
# values a shared exponent of eight bits. The table compares them with the integers of notebook 09
# (groups of 32, each with a scale in fp32), on a weight matrix of `stdlib-gpt` and on the gradient
# of that matrix:

# %% [markdown] tags=["zh"]
# ## 3 · 后来的发展：共享缩放因子的块
#
# 4 个比特（其中一个是符号位）能表示的大小只有 0.5 到 6。只要相邻的数大小相近，并有自己的缩放因子，这就够用：
# **MX 格式**（OCP 2023）给每 32 个数配一个 8 比特的共享指数。下面与第 09 篇的整数（每组 32 个，fp32 缩放因子）并列，
# 对象是 `stdlib-gpt` 的一个权重矩阵及其梯度：

# %%
from efflab.acceleration import block_formats

show_source(block_formats.block_exponents)

# %% tags=["nbval-ignore-output"]
weight, gradient = measure.weight_and_gradient()
rows = []
for name, encode in measure.ENCODERS.items():  # affine.quantize or block_formats.quantize
    weight_codes, gradient_codes = encode(weight), encode(gradient)
    decoded = gradient_codes.dequantize()
    row = {
        "stored as": name,
        "bits per value": 8 * weight_codes.nbytes / weight.numel(),
        "weight error (%)": measure.relative_error(weight_codes.dequantize(), weight),
        "gradient error (%)": measure.relative_error(decoded, gradient),
        "gradient rounded to zero (%)": measure.share_lost(decoded, gradient),
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Scales and elements match torchao's bit for bit (a test checks this). At four bits, MXFP4's error
# is a fifth to a quarter larger than INT4's, but it takes 4.25 bits to INT4's 5. Its levels crowd
# towards zero, so some are wasted on values that hardly affect the error, and a power-of-two scale
# fits less well. At eight bits, INT8's error is far smaller, on the gradient too: with a scale for
# every 32 values, the range of an integer is enough. What INT8 loses is the smallest values (column
# *gradient rounded to zero*), which hardly affect this kind of error.
#
# The FP8 that hardware adopted (Micikevicius et al. 2022; Wang et al. 2018 and Sun et al. 2019 had
# already trained in 8 bits) has *one* scale for a whole tensor, with e4m3 for weights and
# activations and e5m2 for gradients. The same two tensors, stored that way:

# %% [markdown] tags=["zh"]
# 缩放因子和元素与 torchao 逐位相同（有测试为证）。4 比特时 MXFP4 的误差比 INT4 大五分之一到四分之一，但它只花 4.25 比特，对方花 5 比特：
# 它的量化级挤在零附近，有些浪费在对误差影响不大的较小值上；缩放因子只能取 2 的幂，也不那么贴合。
# 8 比特时 INT8 的误差小得多，对梯度也是如此：每 32 个数就有自己的缩放因子，整数的范围便够用。
# 它丢掉的是最小的那些数（见“舍入成零”一列），而这些数对这种误差几乎没有影响。
#
# 硬件采用的 FP8（Micikevicius 等 2022；在此之前 Wang 等 2018、Sun 等 2019 已用 8 比特训练）对*整个张量*只用一个缩放因子：权重和激活值用 e4m3，梯度用 e5m2。
# 同样两个张量，这样处理的结果：

# %% tags=["nbval-ignore-output"]
rows = []
for name, store in measure.OF_A_TENSOR.items():
    decoded = store(gradient)
    row = {
        "stored as": name,
        "weight error (%)": measure.relative_error(store(weight), weight),
        "gradient error (%)": measure.relative_error(decoded, gradient),
        "gradient rounded to zero (%)": measure.share_lost(decoded, gradient),
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# The table shows two things:
#
# - Without a scale, e4m3 is useless for gradients: nearly all of this one is gone. (e5m2 reaches
#   further down, to 2⁻¹⁶, but loses gradients that are smaller still.)
# - With a scale, the integers' error is smaller than e4m3's (by more than half on the weight,
#   slightly on the gradient) and less than half of e5m2's. But integers round part of the gradient
#   to zero, and floats hardly any: the floats' range pays off where one scale has to serve large
#   and small values.
#
# Section 7 shows how training with FP8 fares.

# %% [markdown] tags=["zh"]
# 从中可以看出两点。不加缩放，e4m3 对梯度毫无用处：这个梯度几乎全部丢失。（e5m2 能小到 2⁻¹⁶；再小的梯度它也会丢。）
# 加了缩放，整数的误差比 e4m3 小（权重上不到它的一半，梯度上略小），也不到 e5m2 的一半，但它把一部分梯度舍入成零，浮点几乎不会：一个缩放因子要兼顾大值和小值时，浮点的范围就派上了用场。
# 用 FP8 训练会怎样，见第 7 节。

# %% [markdown] tags=["en"]
# ## 4 · Gradients under the floor
#
# The loss is a mean over n tokens, so its gradient for one token carries a factor 1/n, and each
# layer multiplies what it receives by weights and passes it on. In round numbers: a logit's
# gradient is at most 1/n, so for n = 512 tokens at most 2⁻⁹; for a token to which the model already
# gives 99.9%, a thousandth of that is left, 2⁻¹⁹. fp16's smallest normal number is 2⁻¹⁴, its
# smallest number of all is 2⁻²⁴, and **half of that, 2⁻²⁵, is the floor**: anything at or below it
# becomes zero. So this gradient is only 6 halvings above the floor, and a batch 64 times as large
# brings it down there.
#
# The gradients of a real step of `stdlib-gpt`, in fp32, and the floor:

# %% [markdown] tags=["zh"]
# ## 4 · 跌破下限的梯度
#
# 损失是 n 个 token 的平均，所以每个 token 的梯度都带着因子 1/n；每一层再乘上权重往回传。
# 取整数估一估：logit 的梯度不超过 1/n，n = 512 时不超过 2⁻⁹；模型已有 99.9% 把握的 token 只剩其千分之一，
# 即 2⁻¹⁹。fp16 的最小正规数是 2⁻¹⁴，能表示的最小数是 2⁻²⁴，**它的一半 2⁻²⁵ 就是下限**：
# 不大于它的一律变成零。这个梯度离下限只差 6 次折半，批增大到 64 倍就到了。
#
# 下面是 `stdlib-gpt` 一个真实的 fp32 训练步，以及 fp16 的下限：

# %% tags=["nbval-ignore-output"]
gradients = measure.step_gradients(batch_size, seq_len)
show(figures.floor_figure(gradients, 2.0**14))

# %% [markdown] tags=["en"]
# One or two per cent of the activations' gradients are lost outright, too few to show as bars. Far
# more lie in the yellow zone, where each halving costs a bit of precision. bf16 has fp32's
# exponent, so its zone begins at 2⁻¹²⁶, far to the left of the picture.
#
# **Loss scaling** moves everything to the right: multiply the loss by a scale, and by the chain
# rule every gradient is multiplied by it too; divide it out before the optimizer's step
# (Micikevicius et al. 2018). How large may the scale be?

# %% [markdown] tags=["zh"]
# 激活值的梯度有百分之一二直接丢失，少到柱形图上看不出来；多得多的落在黄色区域，每减半一次就少一位精度。bf16 的指数与 fp32 相同，
# 它的这一区域从 2⁻¹²⁶ 才开始，远在图的左边之外。
#
# **损失缩放**把一切向右移：损失乘上一个系数，由链式法则，每个梯度都乘上了它；更新参数之前再除回来
# （Micikevicius 等 2018）。可以移多远？

# %% tags=["nbval-ignore-output"]
rows = []
for power in (0, 4, 8, 12, 16, 20, 24):
    row = {"scale": f"2^{power}"}
    for name, magnitudes in gradients.items():
        shares = measure.fp16_shares(magnitudes, 2.0**power)
        row[f"{name}: zero (%)"] = shares["zero"]
        row[f"{name}: infinite (%)"] = shares["infinite"]
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# The scale has a window: too small, and small gradients are lost; too large, and large ones become
# infinite. The window moves during training, so the scale is found by trial and error: when a
# gradient overflows, *skip* that step and halve the scale; after enough steps without overflow,
# double it.

# %% [markdown] tags=["zh"]
# 缩放系数有一个合适的区间：太小，小梯度丢失；太大，大梯度变成无穷。区间在训练中还会移动，所以靠试探：
# 梯度溢出就*跳过*这一步，系数减半；连续若干步没有溢出，系数就翻倍。

# %%
from efflab.acceleration.loss_scaling import LossScaler

show_source(LossScaler.update)

# %% [markdown] tags=["en"]
# ## 5 · Today's API
#
# The article writes `torch.cuda.amp.autocast()` and `torch.cuda.amp.GradScaler()`. Both are
# deprecated: today's are in `torch.amp`, take the device type as their first argument and work on a
# CPU too. The article's loop also lacks a line, which we come to below.

# %% [markdown] tags=["zh"]
# ## 5 · 如今的写法
#
# 文章写的是 `torch.cuda.amp.autocast()` 和 `torch.cuda.amp.GradScaler()`。两者都已弃用：
# 如今用 `torch.amp`，第一个参数是设备类型，在 CPU 上也能用。那段循环还缺一样东西，稍后再说。


# %%
def train_with_scaler(model, optimizer, scaler, n_steps):
    steps = []
    for step in range(n_steps):
        ids, targets = measure.windows(step)
        with torch.autocast("cpu", dtype=torch.float16):
            logits = model(ids)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        scaler.scale(loss).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)  # skipped if a gradient is infinite or NaN
        scaler.update()
        optimizer.zero_grad()
        skipped = scaler.get_scale() < scale
        steps.append(dict(step=step, scale=scale, skipped=skipped, loss=loss.item()))
    return steps


# %% [markdown] tags=["en"]
# We train a tiny model this way, really in fp16. The initial scale is deliberately far too large,
# and the scale grows after every 6 steps without overflow instead of the default 2,000:

# %% [markdown] tags=["zh"]
# 下面就用这种写法，真的以 fp16 训练一个微型模型；初始缩放系数故意取得过大，并且连续 6 步没有溢出就翻倍（默认是 2,000 步）：

# %% tags=["nbval-ignore-output"]
with bench.one_thread():
    torch.manual_seed(0)
    tiny = Transformer(measure.TINY)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=6)
    steps = train_with_scaler(tiny, train.adamw(tiny, 3e-3)[0], scaler, n_steps)
show(figures.scaler_figure(steps))

ours, scales = LossScaler(2.0**22, interval=6), []
for step in steps:
    scales.append(ours.scale)
    ours.update(finite=not step["skipped"])
same = scales == [step["scale"] for step in steps]
assert same
assert steps[0]["skipped"]  # 2^22 is far too large
print(lab.tr("Scales match LossScaler's:"), same)

# %% [markdown] tags=["en"]
# At first no step is taken at all: the loss does not move until the scale has come down. Later,
# each overflow costs one batch. bf16 needs no scaler and has none of this trouble. That is why TPUs
# (where bf16 comes from), and by now most GPU training, use bf16, at the price of three bits of
# mantissa.
#
# ### The missing line
#
# The article's loop never zeroes the gradients. `backward` *adds* to what is there, so each step
# follows the sum of all gradients since the beginning. The same model, trained with
# `optimizer.zero_grad()` and without:

# %% [markdown] tags=["zh"]
# 起初一步也没有更新：缩放系数降下来之前，损失停在原处。后来每溢出一次，就白费一批数据。换成 bf16，缩放器就不需要了，
# 这张图也就没有了：TPU（bf16 的出处）和如今大多数 GPU 训练因此都用 bf16，代价是少三位尾数。
#
# ### 缺的那一行
#
# 文章的循环从不清零梯度。`backward` 是往已有的梯度上*累加*，所以每一步走的都是从头到现在全部梯度之和。
# 同一个模型，一次有 `optimizer.zero_grad()`，一次没有：


# %% tags=["nbval-ignore-output"]
def train_in_fp32(seed, zero_gradients, n_steps=50):
    torch.manual_seed(seed)
    model = Transformer(measure.TINY)
    (optimizer,) = train.adamw(model, 3e-3)
    losses, norms = [], []
    for step in range(n_steps):
        loss = train.language_model_loss(model, *measure.windows(seed * 10**6 + step))
        if zero_gradients:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
    return losses, norms


# %% tags=["nbval-ignore-output"]
with bench.one_thread():
    zeroing, summing = (np.array([train_in_fp32(s, z) for s in (0, 1)]) for z in (True, False))
assert (zeroing[:, :, 0] == summing[:, :, 0]).all()  # the same first step
assert (summing[:, 1, -1] > 4 * zeroing[:, 1, -1]).all()  # gradients pile up
show(figures.zeroing_figure(zeroing, summing))

# %% [markdown] tags=["en"]
# Nothing fails, and the first steps look right. Adam divides by the size of the gradients, which
# hides their growth; it cannot hide that their direction is more and more out of date.

# %% [markdown] tags=["zh"]
# 不报错，开头几步看上去也正常。Adam 会除以梯度自身的大小，掩盖了梯度越积越大；掩盖不了的是：方向越来越陈旧。

# %% [markdown] tags=["en"]
# ## 6 · Where the bytes go
#
# Take one parameter, trained with Adam. In fp32 that is weight 4, gradient 4, two moments 8:
# **16 bytes**.
#
# *Autocast* keeps all of that in fp32 and makes 16-bit copies of the matrices on the fly:
# 16 + 2 = **18**. The other recipe (a *recipe* fixes the format of weights, gradients, moments and
# arithmetic), a 16-bit model with *master weights* (Micikevicius; ZeRO), has
# weight 2, gradient 2, master weight 4, moments 8: **16** again (18 in Megatron, with fp32
# gradients). Neither recipe halves anything here. Why keep a master copy? In bf16, 1 + 1/512 is 1:
# an update smaller than half the spacing between numbers is rounded away.
#
# What can halve is what a *batch* adds: the values kept for the backward pass. With 16-bit weights
# they nearly do. Under autocast the residual stream stays in fp32, so at most two fifths can be
# saved. The counts below include autocast's 16-bit copies in what is kept, so a small batch saves
# only a quarter.

# %% [markdown] tags=["zh"]
# ## 6 · 字节花在哪里
#
# 取一个参数，用 Adam。fp32：权重 4，梯度 4，一阶矩和二阶矩 8，共 **16 字节**。
#
# *autocast* 把这些全留在 fp32，计算过程中再为矩阵做一份 16 比特副本：16 + 2 = **18**。
# 另一种做法（*做法*规定权重、梯度、矩和运算各用什么格式）是 16 比特模型加*主权重*（Micikevicius；ZeRO）：权重 2，梯度 2，主权重 4，两个矩 8，又是 **16**
# （Megatron 用 fp32 梯度，为 18）。
# 两者在这里都没有减半。为什么要主权重？在 bf16 里 1 + 1/512 等于 1：不到半个步长的更新会被舍入掉。
#
# 能减半的是*批*带来的部分，即为反向传播保留的值。权重也用 16 比特时，它接近减半；
# 用 autocast 时残差流仍是 fp32，因此最多省五分之二；下面清点时把它的 16 比特副本算在保留的内容里，所以批小时只省四分之一。

# %%
from efflab.acceleration.recipes import RECIPES, state_parts

rows = []
for name, r in RECIPES.items():
    state = sum(state_parts(PRESETS["llama-3.1-70b"], r).values())
    n_bytes = {
        "weights": r.weights,
        "gradients": r.gradients,
        "master weights": r.master,
        "optimizer": r.optimizer,
        "16-bit copies": r.copies,
    }
    row = {"recipe": name, **n_bytes, "bytes per parameter": sum(n_bytes.values())}
    row |= {"bytes per kept value": r.values, "bytes per residual value": r.residual}
    rows.append(row | {"Llama 3.1 70B state (GB)": state / 1e9})
table(rows, digits=4, kind="computed")

# %% [markdown] tags=["en"]
# See column *Llama 3.1 70B state*: training this model in any mixed recipe takes no less than
# fp32's 1,129 GB. Before the first activation, that takes 14 cards of "80 GB" (85.9 · 10⁹ bytes).
# (*16 bits only* halves the state, but it is not a mixed recipe: without a master copy it loses
# small updates.) Where short formats do help is *serving*, because there the state is the weights
# alone: 282 GB in fp32, 141 in bf16, 71 in fp8; the KV cache comes on top.
#
# Now we count steps of `stdlib-gpt`: every tensor, what autograd keeps (caught by hooks), and the
# peak of what is alive at once. The results of matrix products are allocated but not computed:
# bytes follow from the shapes alone, and a CPU without bf16 instructions would take many times as
# long for a 16-bit product. (A test does compute the products, in a smaller step. It gets the same
# counts, and the same peak to within 64 bytes.)

# %% [markdown] tags=["zh"]
# 看“Llama 3.1 70B 的状态”一列：训练这个模型，哪种混合做法都不少于 fp32 的 1,129 GB，还没算激活值就要 14 块标称 80 GB（85.9 · 10⁹ 字节）的卡。
# （“全程 16 比特”能减半，但它不是混合做法：没有主权重，微小的更新会丢失。）
# 短格式真正能缩小的是*部署*时的占用：那时状态只剩权重，fp32 为 282 GB，bf16 为 141 GB，fp8 为 71 GB；KV 缓存另算。
#
# 现在清点：`stdlib-gpt` 的训练步，逐个张量计数，autograd 保留的内容用钩子截获，并记下同时存活字节数的峰值。
# 其中的矩阵乘法只分配结果、不做计算：字节数由形状决定，而没有 bf16 指令的 CPU 做 16 比特矩阵乘法要慢许多倍。
# （有一项测试在较小的训练步上真的去乘，数出来一样，峰值相差不超过 64 字节。）

# %%
shape = batch_size, seq_len
actual = {r: measure.totals(measure.step_bytes(r, *shape)) for r in measure.STEP_RECIPES}
rows = []
for recipe, parts in actual.items():
    formula = measure.totals(measure.formula_bytes(recipe, *shape))
    for part, n_bytes in parts.items():
        row = {
            "recipe": recipe,
            "part": part,
            "formula (MB)": formula[part] / 1e6,
            "measured (MB)": n_bytes / 1e6,
            "measured / formula": n_bytes / formula[part],
            "measured / fp32": n_bytes / actual["fp32"][part],
        }
        rows.append(row)
table(rows, kind="measured")

# %%
autocast, fp32 = (actual[recipe][measure.PEAK] for recipe in ("autocast", "fp32"))
p_memory.reveal(100 - 100 * autocast / fp32)
show(figures.parts_figure(batch_size, seq_len))

# %% [markdown] tags=["en"]
# Set `batch_size` to 1 and `seq_len` to 64: autocast then needs *more* memory than fp32, because
# its copies outweigh what such a small batch saves.
#
# The figure adds up what a step keeps, and the formulas match that sum to within one per cent. The
# peak is higher, by roughly a tenth or more: at that moment the softmax over the vocabulary holds
# two more fp32 arrays. No mixed recipe halves the state, or the loss, which is computed in fp32.
# With a larger batch the state matters less, but the loss grows, unless one **computes the loss in
# chunks**: the logits of 512 tokens at a time, and once more for the backward pass. The same counts
# for larger steps, with the loss whole and in chunks:

# %% [markdown] tags=["zh"]
# 把 `batch_size` 设为 1、`seq_len` 设为 64：autocast 反而比 fp32 占用*更多*内存，因为它的 16 比特副本超过了这么小的批所能省下的。
#
# 图中把一个训练步保留的内容相加；对这个总和，公式的误差在百分之一以内。峰值比总和高出一成左右或更多：到峰值时，词表上的 softmax
# 还多占两个 fp32 数组。任何混合做法都有两样不减半：状态，以及用 fp32 计算的损失。批越大，前者越不重要；
# 后者却随批增长，除非**分块计算损失**：每次只算 512 个 token 的 logits，反向传播时再算一遍。
# 下面对更大的训练步做同样的清点，损失一次算完与分块各一次：

# %%
larger = measure.grown_steps()
rows = []
for (tokens, chunk, recipe), parts in larger.items():
    if recipe != "fp32":
        full = larger[tokens, chunk, "fp32"]
        row = {
            "tokens per step": tokens,
            "loss": "in chunks" if chunk else "whole",
            "recipe": recipe,
            "fp32 (MB)": full[measure.PEAK] / 1e6,
            "mixed (MB)": parts[measure.PEAK] / 1e6,
            "whole step / fp32 (%)": 100 * parts[measure.PEAK] / full[measure.PEAK],
            "kept / fp32 (%)": 100 * parts[measure.BACKWARD] / full[measure.BACKWARD],
        }
        rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# With the loss whole, the peak of the leanest mixed recipe (*master weights*) is 64% of fp32's at
# 10,240 tokens. No batch brings it below 62%, because beyond the state each token adds 62% of
# what it adds in fp32. With the loss in chunks, what is kept is half to within a few per mille, and
# the whole step approaches half as the state's share shrinks. So the memory that "halves" is the
# values kept by the layers. The rest has remedies of its own: 8-bit moments (bitsandbytes), sharded
# state (notebook 12), and *16 bits only*, which loses small updates as noted above.

# %% [markdown] tags=["zh"]
# 损失一次算完时，最省的混合做法（主权重）在 10,240 个 token 上的峰值是 fp32 的 64%，批再大也不会低于 62%：在状态之外，每个 token 带来的部分是 fp32 的 62%。
# 分块之后，保留的内容减到一半，误差在千分之几以内；状态所占的比重越小，整个训练步也越接近一半。
# 所以“减半”的是各层保留的值；其余部分另有办法：8 比特的矩（bitsandbytes）、状态分片（第 12 篇），
# 以及*全程 16 比特*，但如上所说会丢掉小的更新。

# %% [markdown] tags=["en"]
# ## 7 · bf16 on this CPU
#
# A CPU gains from bf16 only if it has the instructions for it. Without them, every number is
# widened, multiplied in fp32 and rounded back. That alone would cost little, but a library without
# fast code for this case falls back on slow generic code. Which instructions your CPU has:

# %% [markdown] tags=["zh"]
# ## 7 · 这块 CPU 上的 bf16
#
# CPU 要有相应的指令，bf16 才能带来好处；没有的话，每个数都要先展宽，用 fp32 相乘，再舍入回去；
# 单是这样并不太慢，但库若没有为此写的快速代码，就会退回很慢的通用代码。你的 CPU 有哪些指令：

# %% tags=["nbval-ignore-output"]
features = bench.cpu_features().items()
rows = [{"instructions": name.upper(), "on this CPU": present} for name, present in features]
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Each row is timed interleaved with fp32, and fp32 is also timed against itself (A/A): a ratio
# inside that band says nothing. If this CPU has the instructions, a second process runs without
# them (`ONEDNN_MAX_CPU_ISA=AVX2`): the error is the same, the time is not. The cap binds oneDNN
# only; the fp32 product it is compared with may run in another library, with everything the CPU
# has. So that row is an upper bound: on a CPU that really lacks the instructions, both products are
# slower.

# %% [markdown] tags=["zh"]
# 每一行都与 fp32 交替计时，fp32 也与自己比一次（A/A）：落在这条噪声带之内的比值说明不了问题。
# 如果这块 CPU 有这些指令，就另开一个进程禁用它们（`ONEDNN_MAX_CPU_ISA=AVX2`）：误差相同，时间却大不一样。
# 这个限制只对 oneDNN 有效，与之对照的 fp32 乘法可能由别的库完成，仍用上 CPU 的全部指令。
# 所以这一行是上限：真正缺少这些指令的 CPU，fp32 和 bf16 都会更慢。

# %% tags=["nbval-ignore-output"]
rows = []
for what, ratio in measure.cpu_ratios(2, 64).items():
    slower, faster = ratio["low"] > 1 + ratio["band"], ratio["high"] < 1 - ratio["band"]
    row = {
        "bf16 used for": what,
        "time / fp32": ratio["mean"],
        "from": ratio["low"],
        "to": ratio["high"],
        "A/A band (%)": 100 * ratio["band"],
        "result": "slower" if slower else "faster" if faster else "no difference",
        "relative error (%)": ratio.get("error"),
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# What does low precision cost in quality? We trained five seeds for 400 steps each. Within a seed,
# every precision has the same start and the same batches, so differences are paired by seed
# (recorded; `efflab experiment mixed-precision`). Two of the rows:
#
# - *fp8 scaled* is FP8 as used in practice: each linear layer multiplies e4m3 operands, its
#   gradients are e5m2, every tensor has a scale, and the weights stay in fp32 (emulated here: the
#   rounding is real, the speed is not).
# - *fp8 weights* is a control that is meant to fail: weights are rounded to e4m3 after each step,
#   with no master copy. If even this showed no difference, the experiment could not detect
#   anything.

# %% [markdown] tags=["zh"]
# 质量上要付什么代价？5 个种子，各 400 步，每种精度的初始权重和各批数据都相同，差值逐种子求
# （存档；`efflab experiment mixed-precision`）。“fp8 缩放”就是实际的 FP8 训练：每个线性层的操作数为 e4m3，梯度为 e5m2，
# 每个张量有自己的缩放因子，权重留在 fp32（这里是模拟：舍入是真的，速度不是）。
# “fp8 权重”是故意要失败的对照：每步之后把权重舍入到 e4m3，不留主权重。假如连它都看不出差别，这个实验就什么也看不出来。

# %%
from efflab.experiments import mixed_precision

lab.show_source(mixed_precision.Fp8Product)
show(figures.loss_curves())

# %%
rows = []
for name in mixed_precision.PRECISIONS:
    losses = measure.by_seed(name, "loss")
    more = None if name == "fp32" else measure.difference(name)  # paired by seed
    row = {
        "precision": name,
        "held-out loss (nats)": sum(losses.values()) / len(losses),
        "difference from fp32 (nats)": more and more.mean,
        "from": more and more.low,
        "to": more and more.high,
        "seeds": len(losses),
    }
    rows.append(row)
table(rows, digits=4, kind="recorded")

# %% [markdown] tags=["en"]
# An interval that contains 0 means that these five seeds cannot tell that precision from the
# baseline, to within the interval's width; the control lies well outside. Updates that are lost
# only late in a long training run do not show up in 400 steps. The beginning of one seed, repeated
# here:

# %% [markdown] tags=["zh"]
# 区间若包含 0，说明这五个种子在区间宽度之内分不出两者的高下；对照组则远离 0。长时间训练到后期才会丢失的更新，
# 在 400 步里看不出来。下面在本机重跑其中一个种子的开头：

# %% tags=["nbval-ignore-output"]
from efflab.experiments.record import agrees, expected_repeat, read_record, same_python

rows = []
for name in ("fp32", "bf16 autocast"):
    losses, _ = mixed_precision.train_until(name, seed, stop=mixed_precision.EARLY)
    now = mixed_precision.early_loss(losses)
    then, spread = expected_repeat(measure.by_seed(name, "early"), seed)
    spread = spread if same_python(read_record(mixed_precision.NAME)) else None
    row = {
        "precision": name,
        "recorded": then,
        "measured": now,
        "within the spread of seeds": agrees(now, then, spread),
    }
    rows.append(row)
table(rows, digits=4)

# %% [markdown] tags=["en"]
# ## 8 · Three times faster than what?
#
# An upper bound needs no GPU. A matrix product takes at least its FLOPs over the peak, and at least
# its bytes over the bandwidth. Going from 4 to 2 bytes halves the second time; what happens to the
# first depends on the baseline. An A100 does 19.5 TFLOP/s in plain fp32, 156 in tf32 on its tensor
# cores, and 312 in 16 bits:

# %% [markdown] tags=["zh"]
# ## 8 · 3 倍是与谁相比？
#
# 要一个上界并不需要 GPU。一次矩阵乘法至少要花 FLOPs / 峰值，也至少要花字节数 / 带宽。从 4 字节到 2 字节，后者减半；
# 前者取决于和谁比。A100 普通 fp32 是 19.5 TFLOP/s，Tensor Core 上的 tf32 是 156，16 比特是 312：

# %%
show(figures.roofs_figure())

# %% [markdown] tags=["en"]
# Over fp32 *without* tensor cores, 3x is modest: large products could gain a factor of 16. Over
# **tf32**, both roofs (memory and compute) double, so the gain is 2 at every size, and **no shape
# reaches 3**. NVIDIA's own A100 runs are compared with TF32, which the containers of its examples
# use by default; plain PyTorch multiplies in fp32 until one line asks for TF32,
# `torch.set_float32_matmul_precision("high")`.
#
# A whole training step is more than matrix products: LayerNorm, GELU and additions only move bytes,
# and Adam's state stays in fp32. The first table puts our bound for BERT-large (*best speed-up*)
# beside the published runs. (The V100's batches are NVIDIA's accumulated batches divided by its
# accumulation steps. Our bound assumes an Adam step for every batch and logits for every token;
# NVIDIA accumulates 32 to 512 batches per step, so its own bound is higher, close to 2 over TF32.)
# In the second table, translation batches are counted in tokens:

# %% [markdown] tags=["zh"]
# 与*不用* Tensor Core 的 fp32 相比，3 倍不算什么：大的矩阵乘法可达 16 倍。与 **tf32** 相比，
# 访存和计算这两个屋顶同时翻倍，任何大小都是 2 倍，**没有哪种形状能到 3 倍**。
# NVIDIA 自己在 A100 上的数据都是与 TF32 相比，它的示例容器默认就用 TF32；
# 原版 PyTorch 默认用 fp32 做矩阵乘法，加一行 `torch.set_float32_matmul_precision("high")` 才用 TF32。
#
# 一个训练步不只有矩阵乘法：LayerNorm、GELU 和加法只搬字节，Adam 的状态仍是 fp32。
# 下面把 BERT-large 的理论最高加速比与文献中的结果并列。（V100 的批是 NVIDIA 的累积批除以累积步数。我们的算法每个批都做一次 Adam 更新，
# 且每个 token 都算 logits；NVIDIA 累积 32 到 512 个批才更新一次，它的上界因此更高，相对 TF32 接近 2。）
# 第二张表里，翻译任务的批以 token 计：

# %%
runs = verdicts.published_runs()
shapes = [("A100 80GB SXM", 128, 256), ("A100 80GB SXM", 512, 32)]
shapes += [("V100 SXM2", 128, 64), ("V100 SXM2", 512, 8)]  # accumulated batch / steps
rows = []
for device, tokens, batch in shapes:
    own = [run for run in runs if run["device"].startswith(device[:4])]
    for base in measure.baselines(device):
        case = dict(task="pretraining", n_devices=1, seq_len=tokens, baseline=base.upper())
        gains = [run["gain"] for run in own if case.items() <= run.items()]
        row = {
            "device": device,
            "sequence length (tokens)": tokens,
            "batch": batch,
            "baseline": base,
            "best speed-up (computed)": measure.step_gain(device, base, tokens, batch),
            "published speed-up": gains[0] if gains else None,
        }
        rows.append(row)
table(rows)

# %%
rows = []
for run in runs:
    batches = f"{run['baseline_batch']} \u2192 {run['mixed_batch']}"
    row = {
        "model": run["model"],
        "task": run["task"],
        "devices": run["n_devices"],
        "device": run["device"],
        "sequence length (tokens)": run["seq_len"],
        "baseline": run["baseline"],
        "batch": batches if run["mixed_batch"] else "-",
        "times faster": run["gain"],
    }
    rows.append(row)
table(rows, kind="published")
p_speed.reveal(runs[0]["gain"])

# %% [markdown] tags=["en"]
# In pre-training, mixed precision also doubled the batch: evidence for the memory claim, and part
# of the speed-up. The 3.8 to 4.5 on a V100 is no contradiction: it has no TF32, so its baseline is
# plain FP32. All of these are throughputs. In time to train, NVIDIA's translation gained a factor
# of 2.62 on eight V100s (11.8 to 4.5 hours, published). On 256 A100s, where communication counts as
# well, BERT gained 2.33 over TF32.
#
# Roofs give what is possible. What a real GPU does, as recorded by `make bench-gpu` (run it, and
# your GPU joins the tables): square matmuls, and a training step of a model with 12 layers of 768
# channels.

# %% [markdown] tags=["zh"]
# 预训练中批也随之翻倍：这正是显存方面的证据，也是提速的一部分原因。V100 上的 3.8 到 4.5 倍与此并不矛盾：
# 它没有 TF32，基线就是普通 FP32。这些都是吞吐量；按训练用时，NVIDIA 的翻译任务在 8 块 V100 上快到 2.62 倍
# （11.8 小时降到 4.5 小时，文献）。在 256 块 A100 上（通信也计入），BERT 相对 TF32 快到 2.33 倍。
#
# 屋顶线说的是可能达到多少。真正的 GPU 做到了多少？下面是 `make bench-gpu` 存档的结果
# （在你的 GPU 上运行一次，结果也会列入表中）：方阵乘法，以及 12 层、768 通道模型的一个训练步。

# %%
table(verdicts.gpu_product_rows(), kind="recorded")
table(verdicts.gpu_step_rows(), kind="recorded")

# %% [markdown] tags=["en"]
# Large products come close to their roofs, and no gain over TF32 exceeds 2. (The gain of the
# largest product over fp32 exceeds its roof, because the library reaches a smaller share of *that*
# peak.) With a large batch, the training step shows the same. With a small batch, the GPU waits for
# launches; autocast launches extra kernels for its casts and is **slower** than TF32, which needs
# no casts.
#
# ## 9 · Explore: time, memory, the batch that fits
#
# Find a model that fits on the device only in 16 bits. Which part takes the most time when the
# batch is 1? How much larger can the batch be with autocast than with fp32, and with master
# weights? Only one recipe fits `qwen3-8b` on one A100: which one, and what does section 6 say about
# it?

# %% [markdown] tags=["zh"]
# 大矩阵的乘法接近各自的屋顶，与 TF32 相比没有一个超过 2 倍。（与 fp32 相比，最大的那个超过了屋顶，
# 因为库的 fp32 离*自己的*峰值更远。）批够大时，训练步也是如此；批小时，GPU 在等待内核启动，
# autocast 还要为类型转换多启动一些内核，结果**比 TF32 更慢**，而 TF32 用不着转换。
#
# ## 9 · 探索：时间、显存、放得下的批
#
# 找一个模型：fp32 放不下，16 比特放得下。批大小为 1 时，时间花在哪一部分？从 fp32 到 autocast，再到主权重，批能大多少？
# 只有一种做法能把 `qwen3-8b` 放进一块 A100：是哪一种？第 6 节是怎么评价它的？

# %%
explore(figures.training, frames=11)

# %% [markdown] tags=["en"]
# ## 10 · Where it breaks
#
# - **A large state, a small batch.** Fine-tuning a large model on one sequence: the memory goes to
#   weights and Adam's state, and mixed precision saves next to nothing.
# - **fp16 without a scaler**: small numbers become zero, and no error is raised.
# - **bf16 weights without master copies**: an update smaller than half the spacing between numbers
#   is rounded away (section 6), and late in training most updates are small. Our 400 steps do not
#   show it.
# - **Sums and softmax in 16 bits**: on a GPU, autocast keeps them in fp32 for a reason (on a CPU
#   its list of operations differs); `model.half()` does not.
# - **A CPU without the instructions**: correct results, many times slower.
#
# On the board: `stdlib-gpt` entirely in bf16, as it would be served.

# %% [markdown] tags=["zh"]
# ## 10 · 何时失效
#
# - **状态大、批小。** 用一条序列微调大模型：内存都花在权重和 Adam 状态上，混合精度几乎省不下什么。
# - **fp16 不加缩放器**：小的数变成零，也不报错。
# - **bf16 权重而没有主权重**：不到半个步长的更新会被舍入掉（第 6 节），而训练后期更新大多很小。
#   我们的 400 步里看不出这一点。
# - **求和与 softmax 用 16 比特**：在 GPU 上，autocast 让它们留在 fp32 是有道理的（CPU 上的算子清单不同），`model.half()` 却不会。
# - **没有相应指令的 CPU**：结果正确，但耗时是 fp32 的许多倍。
#
# 加到总榜上：`stdlib-gpt` 全部用 bf16，也就是部署时的样子。

# %% tags=["nbval-ignore-output"]
import copy

short = copy.deepcopy(points.language_model()).bfloat16()
short.register_forward_hook(lambda module, inputs, logits: logits.float())
board.add(technique="bf16 throughout", **points.language_point(short))

# %% [markdown] tags=["en"]
# ## 11 · Verdicts

# %% [markdown] tags=["zh"]
# ## 11 · 结论

# %%
evidence = verdicts.memory_evidence(larger, verdicts.batch_gains())
lab.verdict("amp-memory", verdicts.amp_memory(evidence))

# %% tags=["nbval-ignore-output"]
here = measure.step_times(2, 64)
evidence = verdicts.speed_evidence(runs, verdicts.recorded_h100(), here)
lab.verdict("amp-speed", verdicts.amp_speed(evidence))

# %% [markdown] tags=["en"]
# ## 12 · Exercises
#
# **06-2 (a target).** Beat MXFP4 at its own 4.25 bits. The standard rounds each block's scale down,
# without asking how well it fits. Write `answer_2(blocks)`: for blocks of shape (n, blocks per row,
# 32), return the integers e of the scales 2^e that give a weight matrix of `stdlib-gpt` the
# smallest error that any choice of e allows; the check tries them all.
# `block_formats.block_exponents(blocks, block_formats.ELEMENTS["mxfp4"])` gives the standard's
# exponents, and `block_formats.quantize(x, "mxfp4", exponents=e)` rounds with yours.
#
# <details><summary>Hint</summary>For each block, try the standard's exponent and the next larger
# one, and keep the one with the smaller error.</details>

# %% [markdown] tags=["zh"]
# ## 12 · 练习
#
# **06-2（挑战题）。** 在同样的 4.25 比特下胜过 MXFP4。标准对每块的缩放因子一律向下取整，不管合不合适。
# 写出 `answer_2(blocks)`：对形状为 (n, 每行块数, 32) 的块，给出每块缩放因子 2^e 中的整数 e，
# 使 `stdlib-gpt` 某个权重矩阵的误差在 e 的所有取法中最小（检查时会逐一试过）。标准自己的指数是
# `block_formats.block_exponents(blocks, block_formats.ELEMENTS["mxfp4"])`，
# 用你的指数舍入则是 `block_formats.quantize(x, "mxfp4", exponents=e)`。
#
# <details><summary>提示</summary>对每个块试标准的指数和比它大 1 的指数，留下误差小的那个。</details>

# %% tags=["exercise", "ex-06-2"]
answer_2 = ...  # def answer_2(blocks): return exponents

# %%
check("06-2", answer_2)

# %% [markdown] tags=["solution", "ex-06-2"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_2(blocks):
#     low = block_formats.block_exponents(blocks, block_formats.ELEMENTS["mxfp4"])
#     rows = blocks.flatten(-2)
#
#     def error(e):
#         back = block_formats.quantize(rows, "mxfp4", exponents=e).dequantize()
#         return (back - rows).square().unflatten(-1, (-1, 32)).sum(-1)
#
#     return low + (error(low + 1) < error(low))
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **06-3 (open: beat `amp-memory`).** Its verdict says that mixed precision does not halve the
# memory of a whole step. Come as close to half as you can, by any recipe: write `answer_3(model)`,
# which returns the model and an optimizer for it, both changed as you like. Two training steps,
# counted from the first tensor on, may take at most 60% of fp32's bytes, and after 60 steps of a
# tiny model the loss may be at most 0.05 nats higher. How low can you get? Try fewer moments,
# moments in 8 bits, or master weights stored as differences.
#
# <details><summary>Hint</summary>Whatever takes four bytes can take two. AdamW's moments have the
# dtype of the parameters that it is given.</details>

# %% [markdown] tags=["zh"]
# **06-3（开放题：推翻 `amp-memory`）。** 它的结论说：混合精度并不能让整个训练步的内存减半。请尽量接近一半，做法不限：
# 写出 `answer_3(model)`，返回模型和它的优化器，怎么改都行。从第一个张量算起，训练两步所占的字节不超过 fp32 的 60%；
# 微型模型训练 60 步之后，损失最多比 fp32 高 0.05 nat。你能压到多低？试试更少的矩、8 比特的矩、以差值形式保存的主权重。
#
# <details><summary>提示</summary>凡是 4 字节的都可以变成 2 字节。AdamW 的矩与交给它的参数同类型。</details>

# %% tags=["exercise", "ex-06-3"]
answer_3 = ...  # def answer_3(model): return model, optimizer

# %%
check("06-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-06-3"]
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
#
# def answer_3(model):
#     model = model.bfloat16()
#     return model, torch.optim.AdamW(model.parameters(), lr=3e-3)
# ```
#
# Over 60 steps this costs nothing visible. Over a long training run it may: section 6 says why.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-06-3"]
# <details><summary>答案</summary>
#
# ```python
# import torch
#
#
# def answer_3(model):
#     model = model.bfloat16()
#     return model, torch.optim.AdamW(model.parameters(), lr=3e-3)
# ```
#
# 60 步之内看不出代价；训练久了就未必，原因见第 6 节。
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - Exponent bits set the range, mantissa bits the precision. bf16 has fp32's range, fp16 has eight
#   times bf16's precision.
# - fp16 turns anything at or below 2⁻²⁵ into zero; loss scaling lifts gradients above that; bf16
#   needs no scaling.
# - Mixed precision halves what the layers keep for the backward pass (autocast saves a quarter to
#   two fifths). The loss does not shrink, unless it is computed in chunks. The state stays at
#   16 bytes per parameter or grows to 18.
# - "3x" needs a baseline: over TF32, an A100's roofline allows 2; over plain FP32, up to 16.
# - Blocks with a shared scale extend the idea to 8 and 4 bits.
#
# **References.** Micikevicius et al. 2018, *Mixed Precision Training*, arXiv:1710.03740. Kalamkar et
# al. 2019, *A Study of BFLOAT16 for Deep Learning Training*, arXiv:1905.12322. Micikevicius et al.
# 2022, *FP8 Formats for Deep Learning*, arXiv:2209.05433. OCP 2023, *Microscaling Formats (MX)
# Specification 1.0*. Williams et al. 2009, *Roofline*. NVIDIA, *DeepLearningExamples*
# (`data/published/amp.csv`).
#
# **Next:** [07 · Compiler fusion](07_compiler_fusion.ipynb): the bytes that LayerNorm and GELU move
# for nothing.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 指数位管范围，尾数位管精度。bf16 的范围同 fp32，fp16 的精度是 bf16 的 8 倍。
# - fp16 把不大于 2⁻²⁵ 的数变成零；损失缩放把梯度抬到它之上；bf16 不需要。
# - 混合精度使各层为反向传播保留的内容减半（autocast 省四分之一到五分之二），损失的部分不减，除非分块计算；
#   状态仍是每参数 16 字节，甚至增到 18。
# - 说“3 倍”要先说基线：与 TF32 比，A100 的屋顶线只允许 2 倍；与普通 FP32 比，可达 16 倍。
# - 共享缩放因子的块把这个思路带到了 8 比特和 4 比特。
#
# **参考文献。** Micikevicius 等 2018，*Mixed Precision Training*，arXiv:1710.03740。Kalamkar 等 2019，
# *A Study of BFLOAT16 for Deep Learning Training*，arXiv:1905.12322。Micikevicius 等 2022，
# *FP8 Formats for Deep Learning*，arXiv:2209.05433。OCP 2023，*Microscaling Formats (MX) Specification 1.0*。
# Williams 等 2009，*Roofline*。NVIDIA，*DeepLearningExamples*（`data/published/amp.csv`）。
#
# **下一篇：** [07 · 编译器融合](07_compiler_fusion.ipynb)：LayerNorm 和 GELU 白白搬运的那些字节。
