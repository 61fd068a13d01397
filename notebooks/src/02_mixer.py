# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 02 · MLP-Mixer: no attention at all
#
# The article says that MLP-Mixer replaces self-attention with *token mixing* and *channel mixing*
# and is simpler to compute. Here you build it, check its parameter count against the paper, train
# it beside a Vision Transformer of the same size, and find the price that the article leaves out.
#
# | | |
# |---|---|
# | **Claim** | `mixer-simpler` |
# | **Time** | 25 minutes; all cells together run in under 40 seconds |
# | **Afterwards you can** | write a Mixer layer in four lines; say what it saves over attention, in FLOPs and in time; explain why a Mixer is tied to one image size, and convert one to another size |

# %% [markdown] tags=["zh"]
# # 02 · MLP-Mixer：完全不用注意力
#
# 文章说，MLP-Mixer 用 *token 混合*与*通道混合*取代自注意力，计算更简单。本篇里，你将亲手搭出它，
# 与论文核对参数量，与同样大小的 Vision Transformer 一起训练，并找出那句话没有提到的代价。
#
# | | |
# |---|---|
# | **论断** | `mixer-simpler` |
# | **用时** | 25 分钟；全部单元格合计运行不到 40 秒 |
# | **学完之后** | 能用四行代码写出 Mixer 层；能说清它比注意力省下多少 FLOPs、多少时间；能解释 Mixer 为何只认一种图像尺寸，并能把它搬到另一种尺寸上 |

# %% tags=["parameters"]
language = "en"
seed = 0  # of the two models trained here, 0 to 999999
n_steps = 200  # training steps, 64 digits each, 1 to 2000
largest_image = 896  # pixels per side, 128 to 1792 in steps of 128

# %%
import torch

from efflab import bench, lab
from efflab.experiments import mixer_digits
from efflab.experiments.record import read_record
from efflab.lab import check, explore, predict, show, table, verdict
from efflab.model import n_parameters
from efflab.structure.mixer import MixerLayer, MLPMixer, enlarge
from efflab_rooms import texts
from efflab_rooms.mixer import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("02_mixer", exercises.EXERCISES, texts("mixer"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# An image is cut into patches, and each patch becomes a vector of C channels. From there on, a
# Vision Transformer (ViT) treats the image like a sentence of S tokens. A layer has to do two
# things: mix information *between patches*, and work on each patch's *channels*. In a ViT,
# attention does the first and the feed-forward network the second. Mixer keeps the second and
# replaces the first. (The article says that channel *and* spatial mixing replace attention. Only
# spatial mixing, that is, token mixing does; channel mixing is the feed-forward network that was
# there already.)

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 图像切成若干图像块（patch），每块变成一个 C 维向量；从这里起，Vision Transformer（ViT）就把它当作
# S 个 token 的句子来处理。每层要做两件事：在*各块之间*交换信息，以及加工每一块自己的*通道*。
# ViT 用注意力做前者，用前馈网络做后者。Mixer 保留后者，换掉前者。（原文说用通道混合*和*空间混合
# 取代注意力：取代注意力的只有后者，即 token 混合；通道混合就是原来的前馈网络。）

# %%
saving = predict(
    "ViT-B/16 with its attention replaced by token mixing is Mixer-B/16. By what percentage do "
    "the FLOPs for one 224 x 224 image fall?",
    unit="%",
)
growth = predict(
    "An image with twice the side has four times the patches. How many times as long does one "
    "layer of ViT-S/16 take for it? Compare the two largest sizes of section 4 (by default 448 and "
    "896 pixels per side).",
    unit="x",
)

# %% [markdown] tags=["en"]
# ## 2 · Build
#
# A Transformer's feed-forward network is two matrices with a GELU between them. Applied to x of
# shape (B, S, C), it works along the channels. Mixer needs the same thing along the patches.

# %% [markdown] tags=["zh"]
# ## 2 · 动手搭建
#
# Transformer 原有的前馈网络是两个矩阵，中间隔一个 GELU。它作用于形状为 (B, S, C) 的 x 时，沿通道方向计算。
# Mixer 要的是沿图像块方向做同样的事。

# %% [markdown] tags=["en"]
# ### Your turn: token mixing
#
# **02-1.** Before you look at our version, write token mixing without biases:
# `mix_tokens(x, up, down)` (as `answer_1`), with x of shape (B, S, C), `up` of shape (d, S), `down`
# of shape (S, d), and a GELU between them.
#
# <details><summary>Hint</summary>
#
# `up` has S columns: which dimension of x do they multiply, and does that need a transpose?
#
# </details>

# %% [markdown] tags=["zh"]
# ### 动手：token 混合
#
# **02-1.** 先别看我们的代码，自己写出 token 混合，不带偏置：`mix_tokens(x, up, down)`（赋给 `answer_1`），其中 x 的形状为
# (B, S, C)，`up` 为 (d, S)，`down` 为 (S, d)，中间一个 GELU。
#
# <details><summary>提示</summary>
#
# `up` 有 S 列：它们对应 x 的哪一维？需要转置吗？
#
# </details>

# %% tags=["exercise", "ex-02-1"]
answer_1 = ...  # def mix_tokens(x, up, down): ...

# %%
check("02-1", answer_1)

# %% [markdown] tags=["solution", "ex-02-1"]
# <details><summary>Solution</summary>
#
# ```python
# def mix_tokens(x, up, down):
#     return down @ torch.nn.functional.gelu(up @ x)
#
#
# answer_1 = mix_tokens
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Our version is just a transpose. `FeedForward` normally works along the channels; applied to the
# transposed x, of shape (B, C, S), it works along the patches:

# %% [markdown] tags=["zh"]
# 我们的做法只是一次转置。`FeedForward` 本来沿通道方向计算，作用于转置成 (B, C, S) 的 x，就沿图像块方向计算：

# %%
lab.show_source(MixerLayer)

# %% [markdown] tags=["en"]
# Compare the first line of `forward` with attention. Attention computes its mixing weights from the
# image; token mixing has *learned* them, and uses the same ones for every image and every channel.
# There is no softmax, no query, no key, no head.
#
# Here are the shapes for an 8 x 8 digit cut into patches of 2 x 2 pixels:

# %% [markdown] tags=["zh"]
# 把 `forward` 的第一行与注意力对比：注意力的混合权重由图像当场算出；token 混合的权重是*学好的*，
# 对每张图、每个通道都用同一套。没有 softmax，没有查询和键，也没有多头。
#
# 把一张 8 x 8 的数字图像切成 2 x 2 像素的图像块，看看各处的形状。四行依次是：图像块（批次、块数、通道）、转置之后、
# token 混合的权重（d_token x 块数）、通道混合的权重（d_channel x 通道）：

# %%
tiny = MLPMixer(8, 2, n_layer=1, d_model=48, d_token=32, d_channel=96, n_classes=10, channels=1)
patches = tiny.patches(torch.zeros(1, 1, 8, 8))
print("patches        ", tuple(patches.shape), " batch, patches, channels")
print("transposed     ", tuple(patches.transpose(1, 2).shape))
print("token mixing   ", tuple(tiny.layers[0].token.up.weight.shape), " d_token x patches")
print("channel mixing ", tuple(tiny.layers[0].channel.up.weight.shape), " d_channel x channels")

# %% [markdown] tags=["en"]
# Remember the third line: **the number of patches is a dimension of a weight.** This will matter
# later.
#
# Is this the network of the paper? Its Table 1 gives the parameters of seven models, without the
# classifier head:

# %% [markdown] tags=["zh"]
# 记住第三行：**图像块的个数是权重的一个维度。** 后面还会遇到它。
#
# 这就是论文里的网络吗？论文的表 1 给出了七个模型的参数量，不含分类头：

# %%
from efflab.data import read_published
from efflab.structure.mixer import MixerConfig, mixer_flops, mixer_params

rows = []
for row in read_published("mixer"):
    patch_size = int(row["model"].split("/")[1])
    sizes = [row[name] for name in ("layers", "channels", "d_token", "d_channel")]
    config = MixerConfig(224, patch_size, *sizes)
    n_params = mixer_params(config)
    ours = {
        "model": f"Mixer-{row['model']}",
        "patches": row["patches"],
        "parameters (millions, published, no head)": row["params_millions"],
        "parameters (our formula)": n_params,
        "ratio": n_params / 1e6 / row["params_millions"],
        "GFLOP per image": mixer_flops(config) / 1e9,
    }
    rows.append(ours)
table(rows, digits=4, kind="computed")

# %% [markdown] tags=["en"]
# All ratios are within the paper's rounding. Note that S/16 has *fewer* parameters than S/32 but
# nearly four times the FLOPs: smaller patches make the embedding smaller and the sequence longer.

# %% [markdown] tags=["zh"]
# 差异都在论文的四舍五入之内。注意：S/16 的参数比 S/32 *更少*，计算量却接近四倍。图像块越小，嵌入层越小，序列越长。

# %% [markdown] tags=["en"]
# ## 3 · Measure: what is saved
#
# Write d for `d_token`. Per layer and image, with 2 FLOPs per multiply-accumulate:
#
# | what mixes the patches | FLOPs | weights |
# |---|---|---|
# | attention: four projections, then scores and weighted sum | 8 S C² + 4 S² C | 4 C² |
# | token mixing: up and down, once per channel | 4 S C d | 2 S d |
#
# Both models keep a feed-forward network for the channels, four times as wide as C: 16 S C². All of
# the paper's models have d = C / 2, so token mixing takes 2 S C². Divide the sums by S C²: a Mixer
# layer takes 2 + 16 = 18, a ViT layer 8 + 16 + 4 S / C. The ratio of Mixer to ViT is then:
#
# - With few patches, S much smaller than C: 18 / 24 = 0.75.
# - B/16 at 224 pixels, S = 196 and C = 768: 18 / 25.0 = 0.72.
# - B/16 at 448 pixels, S = 784, about C: 18 / 28.1 = 0.64.

# %% [markdown] tags=["zh"]
# ## 3 · 实测：省下了什么
#
# 记 d 为 `d_token`。每层、每张图像的计算量，一次乘加计 2 FLOPs：
#
# | 用什么混合图像块 | FLOPs | 权重 |
# |---|---|---|
# | 注意力：四个投影，再加分数与加权求和 | 8 S C² + 4 S² C | 4 C² |
# | token 混合：升维与降维，每个通道一次 | 4 S C d | 2 S d |
#
# 两者都保留处理通道的网络，宽度为 C 的四倍：16 S C²。论文的模型都取 d = C / 2，所以 token 混合是 2 S C²。
# 总和除以 S C²：Mixer 一层是 2 + 16 = 18，ViT 一层是 8 + 16 + 4 S / C。Mixer 与 ViT 之比为：
#
# - 图像块很少，S 远小于 C：18 / 24 = 0.75。
# - 224 像素的 B/16，S = 196，C = 768：18 / 25.0 = 0.72。
# - 448 像素的 B/16，S = 784，约等于 C：18 / 28.1 = 0.64。

# %%
from efflab.structure.vit import ViTConfig, vit_flops, vit_params

mixer, vit = MixerConfig(224, 16, 12, 768, 384, 3072), ViTConfig(224, 16, 12, 12, 768, 3072)
params = {"Mixer-B/16": mixer_params(mixer), "ViT-B/16": vit_params(vit)}
flops = {"Mixer-B/16": mixer_flops(mixer), "ViT-B/16": vit_flops(vit)}
rows = [
    {
        "model": name,
        "parameters (no head)": params[name],
        "GFLOP per image": flops[name] / 1e9,
        "FLOP per parameter": flops[name] / params[name],
    }
    for name in params
]
ratios = {header: rows[0][header] / rows[1][header] for header in list(rows[0])[1:]}
table([*rows, {"model": "Mixer / ViT", **ratios}], kind="computed")
flop_ratio = flops["Mixer-B/16"] / flops["ViT-B/16"]
saving.reveal(round(100 * (1 - flop_ratio), 1))

# %% [markdown] tags=["en"]
# (Our ViT-B/16 averages its patches as Mixer does, and has no class token.) FLOPs fall by less than
# a third, and so do parameters: per parameter, a Mixer does about as much arithmetic as a ViT.
# Token mixing itself is several times cheaper than attention (exercise 02-3), but most of a layer
# is channel mixing, and that stays as it was.
#
# ### At equal parameters, on real images
#
# So we give both models about the same number of parameters and train them on 1,437 of
# scikit-learn's 1,797 handwritten digits (360 are held out), with the same batches, the same number
# of steps and the same learning rate. To match the Mixer's parameters, the ViT is narrower (36
# channels instead of 48). It also has a position table, whose initial values are ten times larger
# than usual (0.2), because small models otherwise learn positions late. The learning rate was tuned
# for neither model.
#
# Note the FLOPs: at equal *parameters* the Mixer needs more of them than the ViT. Its time need not
# follow, because in models this small much of the time goes into operators that FLOPs do not count.
# (*time / ViT's time* is the median over paired repeats, not the quotient of the two medians.)

# %% [markdown] tags=["zh"]
# （这里的 ViT-B/16 也像 Mixer 那样对图像块取平均，没有分类 token。）
# 计算量下降不到三分之一，参数量也是如此：平均到每个参数，Mixer 的计算量几乎与 ViT 相同。
# token 混合本身的计算量只有注意力的几分之一（见练习 02-3），但一层的大头是通道混合，而它原封未动。
#
# ### 同样的参数量，真实的图像
#
# 因此我们让两者参数量大致相同，在 scikit-learn 的 1,797 张手写数字中取 1,437 张训练（360 张留作测试）：
# 同样的批次、同样的步数、同样的学习率。为此 ViT 更窄（36 个通道，而不是 48 个），并且多一张位置表，
# 其初值取通常的十倍（0.2），否则小模型很晚才学会位置；学习率对两者都没有调过。请注意计算量：*参数量*大致相同时，
# Mixer 的计算量比 ViT 更大。耗时却未必如此：模型这么小时，相当一部分时间花在 FLOPs 不计的算子上。
# （“耗时 / ViT 的耗时”一列是各次成对重复之比的中位数，不是两个中位数之商。）

# %% tags=["nbval-ignore-output"]
models = {k: mixer_digits.train_model(k, seed, n_steps=n_steps) for k in mixer_digits.KINDS}
trained_flops = {
    "mixer": mixer_flops(models["mixer"].config),
    "vit": vit_flops(models["vit"].config),
}
images = torch.rand(360, 1, 8, 8)
with torch.no_grad():
    times = bench.time_interleaved({k: lambda m=m: m(images) for k, m in models.items()}, 2, 15)
rows = []
for kind, model in models.items():
    row = {
        "model": measure.NAMES[kind],
        "parameters": n_parameters(model),
        "MFLOP per image (computed)": trained_flops[kind] / 1e6,
        "time for 360 images (ms)": 1e3 * times[kind].median,
        "time / ViT's time": times[kind].ratio(times["vit"]),
        "accuracy (%)": 100 * mixer_digits.accuracy(model),
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# One seed proves little. The curves below were recorded with five seeds and three sizes of the
# training set; the stars are the two models that you have just trained.

# %% [markdown] tags=["zh"]
# 单个随机种子说明不了什么。下面的曲线是事先存档的，用了五个种子、三种训练集大小；
# 星号是你刚刚训练的两个模型。

# %% tags=["nbval-ignore-output"]
record = read_record(mixer_digits.NAME)
live = {kind: mixer_digits.accuracy(model) for kind, model in models.items()}
show(figures.accuracy_figure(record, live))
print(record["command"], "|", record["machine"], "|", record["date"])

# %% [markdown] tags=["en"]
# Do not generalize from which model is ahead here. The digits are centred, so weights tied to fixed
# positions are an advantage; and 200 steps are few, so the faster learner wins. Trained on ImageNet
# alone (with extra regularization), Mixer-B/16 reaches an accuracy of 76.44% and ViT-B/16 79.67%
# (published, Table 3; the ViT's figure comes from its authors): Mixer overfits more. With more
# data, the gap narrows for the large models (L/16: 4.35 points with ImageNet, 1.57 with
# ImageNet-21k), but not for B/16 (3.23, then 3.95).

# %% [markdown] tags=["zh"]
# 这里谁领先，不可推而广之：数字都居中摆放，与固定位置绑定的权重就占了便宜；200 步也很少，
# 学得快的一方自然占先。只用 ImageNet（并加额外正则化）训练时，准确率 Mixer-B/16 是 76.44%，ViT-B/16 是 79.67%
# （文献，表 3；ViT 的数字由其作者提供）：Mixer 更容易过拟合。数据增多时，差距在大模型上缩小（L/16：用 ImageNet
# 训练差 4.35 个百分点，用 ImageNet-21k 差 1.57），B/16 则没有（先是 3.23，后是 3.95）。

# %% [markdown] tags=["en"]
# ## 4 · Measure: larger images
#
# Attention's 4 S² C is quadratic in the number of patches; token mixing's 4 S C d is linear, as
# long as d stays fixed. We time one layer of each, interleaved (C = 384, as in ViT-S; patches 16
# pixels wide).

# %% [markdown] tags=["zh"]
# ## 4 · 实测：更大的图像
#
# 注意力的 4 S² C 与块数成平方关系；token 混合的 4 S C d 则是线性的，前提是 d 不变。
# 下面各取一层（C = 384，与 ViT-S 相同，图像块边长 16）交替计时。

# %% tags=["nbval-ignore-output"]
costs = [measure.layer_costs(largest_image // part) for part in (8, 4, 2, 1)]
rows = []
for cost in costs:
    layer_flops = cost.flops["vit"] / cost.flops["mixer"]
    layer_time = cost.times["vit"].ratio_interval(cost.times["mixer"])
    row = {
        "image side (pixels)": cost.image_size,
        "patches": cost.n_patches,
        "ViT / Mixer: FLOPs (computed)": layer_flops,
        "ViT / Mixer: time (measured)": layer_time.mean,
        "interval, low": layer_time.low,
        "interval, high": layer_time.high,
        "measured / computed": layer_time.mean / layer_flops,
        "weights per Mixer layer": cost.n_params["mixer"],
        "weights per ViT layer": cost.n_params["vit"],
    }
    rows.append(row)
table(rows, kind="measured")
growth.reveal(costs[-1].times["vit"].median / costs[-2].times["vit"].median)

# %% tags=["nbval-ignore-output"]
show(figures.cost_figure(costs))

# %% [markdown] tags=["en"]
# Four times as many patches make a linear cost 4 times and a quadratic one 16 times as large; a ViT
# layer's FLOPs lie in between, since only part of them are quadratic. The left panel shows the
# time, which is what the article means. (The paper timed whole models: 1,384 images a second and
# core for Mixer-B/16, 861 for ViT-B/16, 1.61 times as many: published, Table 3, TPU-v3, 224
# pixels.) The right panel shows what the article does not mention: the weights of a ViT *layer* do
# not depend on the number of patches (only its position table does, once per model), while those of
# a Mixer layer grow with it. And if you let d grow with S as well, token mixing is quadratic too.

# %% [markdown] tags=["zh"]
# 图像块数变为 4 倍时，线性开销变为 4 倍，平方级开销变为 16 倍；一层 ViT 的计算量介于两者之间，
# 因为其中只有一部分是平方级。左图是文章所说的耗时。（论文测的是整个模型：每秒每核处理的图像，
# Mixer-B/16 为 1,384 张，ViT-B/16 为 861 张，前者是后者的 1.61 倍：文献，表 3，TPU-v3，224 像素。）
# 右图是文章没有说的：ViT *一层*的权重与块数无关（只有整个模型共用的一张位置表与之有关），
# Mixer 一层的权重却随块数增长。如果让 d 也随 S 一起变大，token 混合同样是平方级的。

# %% [markdown] tags=["en"]
# ## 5 · Explore
#
# Find the image side at which the ViT needs twice the Mixer's FLOPs. Then make the model wider:
# does Mixer's advantage grow or shrink? Finally, choose patches of 8 pixels and a large image, and
# watch the part that mixes patches take over the Mixer's weights.

# %% [markdown] tags=["zh"]
# ## 5 · 探索
#
# 找出 ViT 的计算量达到 Mixer 两倍时的图像边长。再把模型加宽：Mixer 的优势变大还是变小？
# 最后取边长 8 的图像块和一张大图，看 Mixer 的权重如何大半被“混合图像块”的部分占去。

# %%
explore(figures.mixer_or_vit)

# %% [markdown] tags=["en"]
# ## 6 · Where it breaks: another image size
#
# Give the two models that you trained digits of twice the side. The ViT interpolates its position
# table and runs. The Mixer cannot:

# %% [markdown] tags=["zh"]
# ## 6 · 何时失效：换一种图像尺寸
#
# 把边长放大一倍的数字交给刚训练好的两个模型。ViT 的位置表可以插值，照常运行；Mixer 却不行。
# 报错说：它的 token 混合权重是为 8 x 8 的图像准备的，只接受这种尺寸：

# %%
try:
    models["mixer"](torch.zeros(1, 1, 16, 16))
except ValueError as error:
    print(error)

# %% [markdown] tags=["en"]
# Its weights are 16 patches wide, and there are 64 patches now. The paper's way out (appendix C) is
# to *enlarge* the weights: split the patches into four groups and pass each group through a copy of
# the old network. The paper's groups are the four quadrants of the image; ours take every second
# patch in both directions, so that each group still covers the whole image, sparsely. The new
# matrices are block-diagonal.

# %% [markdown] tags=["zh"]
# 它的权重按 16 个图像块设计，而现在有 64 个。论文的办法（附录 C）是把权重*扩大*：把图像块分成四组，
# 每组各自通过原网络的一个副本。论文的四组是图像的四个象限；我们的每组在两个方向上隔一块取一块，
# 因此仍稀疏地覆盖整张图。新矩阵是分块对角的。

# %% tags=["nbval-ignore-output"]
larger = {"mixer": enlarge(models["mixer"], 2), "vit": models["vit"]}
rows = []
for kind, model in models.items():
    row = {
        "model": measure.NAMES[kind],
        "accuracy at 8 x 8 (%)": 100 * mixer_digits.accuracy(model),
        "accuracy at 16 x 16, not retrained (%)": 100 * mixer_digits.accuracy(larger[kind], 2),
        "parameters at 8 x 8": n_parameters(model),
        "parameters at 16 x 16": n_parameters(larger[kind]),
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# The table shows how much accuracy is left without further training, on images whose patches now
# show a quarter of what they showed in training. That the ViT runs does not mean that it copes: see
# which of the two models keeps more, with this one seed. The Mixer also pays in weights: for 4
# times as many patches, its token-mixing matrices have 16 times as many entries. And it pays in
# FLOPs, since d grew with the patches. For the paper's B/16:

# %% [markdown] tags=["zh"]
# 表中是不再训练时准确率还剩多少；现在每个图像块里只有训练时四分之一的内容。ViT 能运行，不等于适应得好：
# 请看这一个种子下两者谁剩得多。此外 Mixer 还要多存权重：图像块增加到 4 倍，token 混合矩阵的元素增加到 16 倍。
# 计算量也要付出代价，因为 d 随块数变大了。以论文的 B/16 为例：

# %%
rows = [
    {
        "image side (pixels)": 224 * factor,
        "Mixer / ViT: FLOPs, d = 384": measure.flop_ratio(224 * factor),
        "Mixer / ViT: FLOPs, enlarged": measure.flop_ratio(224 * factor, 384 * factor**2),
    }
    for factor in (1, 2, 3, 4)
]
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# A Mixer built with d = 384 from the start saves more the larger the image. One enlarged from 224
# pixels saves less the larger the image, and from 672 on nothing. The verdict's figures are those
# of the first kind.
#
# Two more limits:
#
# - **Order.** If you shuffle the patches, a Mixer sees a different image, even without position
#   embeddings; that is why it needs none.
# - **Text.** Sentences have many lengths, and a language model must not look ahead, whereas token
#   mixing as it stands sees all positions at once. The second problem can be fixed: a single mixing
#   matrix between positions, as in gMLP, does not look ahead if it is lower-triangular. But the
#   number of positions stays fixed, and the model has to be trained from scratch. The two models on
#   our board are already trained and cannot take it, so Mixer gets no point there.

# %% [markdown] tags=["zh"]
# 一开始就取 d = 384 的 Mixer，图像越大省得越多；从 224 像素扩大而来的则越省越少，到 672 像素就不再节省。
# 结论卡中的数字属于前一种。
#
# 还有两点限制。**顺序：** 打乱图像块，Mixer 看到的就是另一张图，哪怕没有位置嵌入。它也正因此
# 不需要位置嵌入。**文本：** 句子长短不一，语言模型又不能偷看后文，而这里的 token 混合一次看到所有位置。
# 后一点可以补救：像 gMLP 那样只用一个混合位置的矩阵，取下三角就看不到后文。但位置数仍然固定，而且要重新训练：
# 总榜上的两个模型已经训练好，不能直接换上它，所以榜上没有 Mixer 的点。

# %% [markdown] tags=["en"]
# ## 7 · Verdict

# %% [markdown] tags=["zh"]
# ## 7 · 结论

# %% tags=["nbval-ignore-output"]
evidence = verdicts.mixer_evidence(
    {side: measure.flop_ratio(side) for side in measure.SIDES},
    {cost.image_size: cost.mixer_over_vit.with_noise(cost.band) for cost in costs},
    {side: measure.equal_flop_ratio(side) for side in measure.SIDES},
    trained_flops["mixer"] / trained_flops["vit"],
    measure.token_weights_growth(),
    mixer_digits.by_seed(record["runs"]),
)
verdict("mixer-simpler", verdicts.mixer_simpler(evidence))

# %% [markdown] tags=["en"]
# ## 8 · Exercises
#
# **02-2.** Write `token_weights(image_size, patch_size, d_token)` (as `answer_2`): the number of parameters of
# one layer's token-mixing network, biases included.
#
# <details><summary>Hint</summary>
#
# Two matrices between `patches` and `d_token`; one bias has `d_token` entries, the other `patches`.
#
# </details>

# %% [markdown] tags=["zh"]
# ## 8 · 练习
#
# **02-2.** 写出 `token_weights(image_size, patch_size, d_token)`（赋给 `answer_2`）：token 混合网络在一层里的参数个数，含偏置。
#
# <details><summary>提示</summary>
#
# 在 `patches` 与 `d_token` 之间有两个矩阵；一个偏置有 `d_token` 项，另一个有 `patches` 项。
#
# </details>

# %% tags=["exercise", "ex-02-2"]
answer_2 = ...  # def token_weights(image_size, patch_size, d_token): ...

# %%
check("02-2", answer_2)

# %% [markdown] tags=["solution", "ex-02-2"]
# <details><summary>Solution</summary>
#
# ```python
# def token_weights(image_size, patch_size, d_token):
#     patches = (image_size // patch_size) ** 2
#     return 2 * patches * d_token + d_token + patches
#
#
# answer_2 = token_weights
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **02-3.** How many times the FLOPs of token mixing does attention take? Write
# `cost_ratio(patches, d_model, d_token)` (as `answer_3`) from the table in section 3.
#
# <details><summary>Hint</summary>
#
# (8 S C² + 4 S² C) / (4 S C d) simplifies: one S and one C cancel.
#
# </details>

# %% [markdown] tags=["zh"]
# **02-3.** 注意力的 FLOPs 是 token 混合的多少倍？根据第 3 节的表格写出
# `cost_ratio(patches, d_model, d_token)`（赋给 `answer_3`）。
#
# <details><summary>提示</summary>
#
# (8 S C² + 4 S² C) / (4 S C d) 可以化简：约掉一个 S 和一个 C。
#
# </details>

# %% tags=["exercise", "ex-02-3"]
answer_3 = ...  # def cost_ratio(patches, d_model, d_token): ...

# %%
check("02-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-02-3"]
# <details><summary>Solution</summary>
#
# ```python
# def cost_ratio(patches, d_model, d_token):
#     return (2 * d_model + patches) / d_token
#
#
# answer_3 = cost_ratio
# ```
#
# For B/16 at 224 pixels that is (1,536 + 196) / 384 = 4.5: attention takes 4.5 times the FLOPs of
# token mixing, but a whole ViT layer takes only 1.4 times those of a Mixer layer.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-02-3"]
# <details><summary>答案</summary>
#
# ```python
# def cost_ratio(patches, d_model, d_token):
#     return (2 * d_model + patches) / d_token
#
#
# answer_3 = cost_ratio
# ```
#
# 对 224 像素的 B/16，结果是 (1,536 + 196) / 384 = 4.5：注意力的 FLOPs 是 token 混合的 4.5 倍，
# 而整层只是 Mixer 一层的 1.4 倍。
#
# </details>

# %% [markdown] tags=["en"]
# **02-4 (a target).** The Mixer of section 3 reads the digits with 22 thousand parameters. Use at
# most a quarter of them, 5,518, and get at least 95% of the held-out digits right after the same
# 200 steps (seed 0):
# `answer_4 = dict(patch_size=..., n_layer=..., d_model=..., d_token=..., d_channel=...)`. The check
# trains your model, which takes a few seconds.
#
# <details><summary>Hint</summary>Count how many parameters each setting costs. With fewer, larger
# patches, token mixing is smaller, and the first layer's map sees more pixels at once.</details>

# %% [markdown] tags=["zh"]
# **02-4（挑战题）。** 第 3 节的 Mixer 用 2.2 万个参数认数字。请只用四分之一，即至多 5,518 个，同样训练 200 步（种子 0），
# 在留出的数字上至少认对 95%：`answer_4 = dict(patch_size=..., n_layer=..., d_model=..., d_token=..., d_channel=...)`。
# 检查时会真的训练它，要几秒钟。
#
# <details><summary>提示</summary>算一算每项设置各占多少参数。图像块大而少，token 混合就小，而且第一层映射一次看到的像素更多。</details>

# %% tags=["exercise", "ex-02-4"]
answer_4 = ...  # dict(patch_size=..., n_layer=..., d_model=..., d_token=..., d_channel=...)

# %%
check("02-4", answer_4)

# %% [markdown] tags=["en", "solution", "ex-02-4"]
# <details><summary>Solution</summary>
#
# ```python
# answer_4 = dict(patch_size=4, n_layer=2, d_model=24, d_token=32, d_channel=32)
# ```
#
# This takes 4,666 parameters. With patches of 4 x 4 there are four of them instead of sixteen, so
# token mixing has fewer weights. With patches 2 pixels wide, the same widths stay below 95%.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-02-4"]
# <details><summary>答案</summary>
#
# ```python
# answer_4 = dict(patch_size=4, n_layer=2, d_model=24, d_token=32, d_channel=32)
# ```
#
# 4,666 个参数。图像块取 4 × 4 时只有四块，而不是十六块：混合 token 的权重更少；同样的宽度，图像块取 2 × 2 则不到 95%。
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - A Mixer layer applies a feed-forward network twice: along the channels, and, transposed, along
#   the patches. Its mixing weights are learned once; attention computes its own for every image.
# - At 224 pixels it saves less than a third of ViT-B/16's FLOPs, and about the same fraction of its
#   parameters. Compared with a ViT of equal parameters, it saves no FLOPs at this size, and 15% at
#   448 pixels.
# - The advantage grows with the image, because Mixer's FLOPs are linear in the number of patches as
#   long as d stays fixed. Enlarged as in section 6, its d grows too, and from 672 pixels on it
#   saves nothing.
# - The price is a fixed image size: the number of patches is a dimension of its weights.
#
# **References.** Tolstikhin et al. 2021, *MLP-Mixer: An all-MLP Architecture for Vision*;
# Dosovitskiy et al. 2021, *An Image is Worth 16x16 Words*; Liu et al. 2021, *Pay Attention to MLPs*
# (gMLP).
#
# **Next:** [03 · Sparse attention](03_sparse_attention.ipynb) keeps attention and leaves out most
# of its pairs.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - Mixer 就是把前馈网络用两次：一次沿通道，一次转置后沿图像块。它的混合权重一次学成；
#   注意力则对每张图当场计算。
# - 在 224 像素下，它比 ViT-B/16 省下不到三分之一的计算量，参数省下的比例也差不多；与参数量相同的 ViT 相比，
#   在这个尺寸上计算量并不省，到 448 像素则省 15%。图像越大优势越大，因为只要 d 不变，它的计算量就与块数成正比；
#   若按第 6 节那样扩大，d 也随之变大，到 672 像素就不再节省。
# - 代价是图像尺寸固定：块数是它权重的一个维度。
#
# **参考文献。** Tolstikhin 等，2021，*MLP-Mixer: An all-MLP Architecture for Vision*；
# Dosovitskiy 等，2021，*An Image is Worth 16x16 Words*；Liu 等，2021，*Pay Attention to MLPs*（gMLP）。
#
# **下一篇：** [03 · 稀疏注意力](03_sparse_attention.ipynb) 保留注意力，但省去其中大部分的配对。
