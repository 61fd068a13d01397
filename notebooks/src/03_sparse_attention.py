# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 03 · Sparse attention
#
# Full attention compares every token with every other: n² pairs. Most of them contribute little. If
# each token looks only at its neighbours, n² becomes n times a constant. This notebook builds such
# attention, measures what it saves, and finds what it can no longer do.
#
# | | |
# |---|---|
# | **Claims** | `sparse-linear` and, once more, `attention-quadratic` |
# | **Time** | 40 minutes; all cells together run in two to four minutes |
# | **Afterwards you can** | explain how window and block-sparse attention really skip work; count their pairs; say how far a stack of them sees; name what the article's Swin listing lacks; tell when a global or a random block is needed |

# %% [markdown] tags=["zh"]
# # 03 · 稀疏注意力
#
# 全注意力让每个 token 与所有 token 两两比较，共 n² 对，其中多数贡献甚微。如果每个 token
# 只看自己的邻居，n² 就变成 n 乘一个常数。本篇把它实现出来，实测能省多少，再看看它从此做不到什么。
#
# | | |
# |---|---|
# | **论断** | `sparse-linear`，以及再次检验 `attention-quadratic` |
# | **用时** | 40 分钟；全部单元格合计运行两到四分钟 |
# | **学完之后** | 能说清窗口注意力和块稀疏注意力如何真正跳过计算；能数出它们的配对数；能说出若干层叠起来的感受野有多大；能指出文章里的 Swin 代码缺了什么；能判断何时需要全局块或随机块 |

# %% tags=["parameters"]
language = "en"
window_size = 128  # keys that a token sees on each side, 0 to 32768
max_len = 8192  # the longest sequence that is measured, 2048 to 32768
seed = 0  # of the models that are trained below, 0 to 999999

# %%
import torch
import torch.nn.functional as F

from efflab import cost, data, lab, points, pretrained
from efflab.config import PRESETS
from efflab.experiments import attention_bench, window_tuned
from efflab.experiments.record import read_record
from efflab.structure import bigbird, swin, window

lab.use_language(language)

# %%
from efflab.lab import board, check, explore, predict, show, show_source, sweeps, table, verdict
from efflab_rooms import texts
from efflab_rooms.sparse_attention import exercises, figures, measure, verdicts

lab.use_notebook("03_sparse_attention", exercises.EXERCISES, texts("sparse_attention"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# Full attention over 8,192 tokens compares 67 million pairs per head. With 128 keys on each side, a
# token sees 257 keys instead of 8,192. How much of that shows up as a speed-up?

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 对 8,192 个 token 做全注意力，每个头要比较 6700 万对。若每侧只看 128 个键，一个 token 看到的键就从
# 8,192 个减到 257 个。这个差距有多少能体现为加速？

# %%
speedup = predict(
    "How many times faster is a window of 128 keys on each side than full attention, "
    "at the longest sequence measured here?",
    unit="x",
)

# %% [markdown] tags=["en"]
# ## 2 · Which pairs
#
# A row is a query, a column is a key, a dark square is a pair that is computed. A window keeps a
# band around the diagonal. A causal window, for a model that generates from left to right, drops
# the upper half as well.

# %% [markdown] tags=["zh"]
# ## 2 · 保留哪些配对
#
# 一行是一个查询，一列是一个键，深色格子是要计算的一对。窗口只保留对角线附近的一条带。
# 从左到右生成的模型用因果窗口，上半部分也去掉。

# %%
show(figures.mask_picture())

# %% [markdown] tags=["en"]
# Move the window, the length and the causal switch: the picture and the arithmetic follow. Note
# that the window's curve approaches a straight line of slope 1 only where the sequence is many
# times longer than the window.

# %% [markdown] tags=["zh"]
# 拖动窗口大小和序列长度，切换因果开关，图和计算量会一起变化。注意：只有序列比窗口长很多倍时，
# 窗口的曲线才接近斜率为 1 的直线。

# %%
explore(figures.window_cost)

# %% [markdown] tags=["en"]
# ## 3 · Build: a mask saves nothing
#
# Adding a mask to full attention gives the right result and saves no work: the hidden scores are
# computed and thrown away. To save work, the code must never touch the hidden pairs.
#
# The trick: in the middle of the sequence, all blocks of 64 queries see the *same* band of keys,
# shifted by 64 from one block to the next. `unfold` describes all these overlapping key ranges as
# one view, without copying a number, and the ordinary attention kernel takes them as one large
# batch. Only the few blocks at the two ends, whose bands would stick out of the sequence, are
# handled separately.

# %% [markdown] tags=["zh"]
# ## 3 · 实现：掩码省不了计算
#
# 给全注意力加一个掩码，结果是对的，却一点计算也没省：被遮住的分数照样算出来，再扔掉。
# 要真正省下来，就完全不能碰被遮住的配对。
#
# 关键在于：把序列中段的查询每 64 个分成一块，各块要看的键带形状*完全相同*，只是依次平移 64。
# `unfold` 把这些互相重叠的键区间描述成一个视图，一个数也不复制；普通的注意力内核（kernel）把它们当作一个大批次来算。
# 只有两端少数几块，键带会伸出序列之外，要单独处理。

# %%
show_source(window.attend_in_blocks)

# %% [markdown] tags=["en"]
# Is it right? Compare its values and gradients with those of full attention under the mask.

# %% [markdown] tags=["zh"]
# 对不对？与加掩码的全注意力比较，数值（same values）和梯度（same gradients）都比。

# %%
q, k, v = (torch.randn(1, 2, 500, 32, requires_grad=True) for _ in range(3))
ours = window.sliding_window_attention(q, k, v, 70)
mask = window.window_mask(500, 70)
dense = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
grads = [torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (ours, dense)]
print("same values:   ", torch.allclose(ours, dense, atol=1e-5))
same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(*grads, strict=True)]
print("same gradients:", all(same))

# %% [markdown] tags=["en"]
# ## 4 · Measure: does it grow with n?
#
# By the formula, for w < n, a window leaves n(2w + 1) − w(w + 1) of the n² pairs. The window and
# full attention are timed interleaved, on the same random heads (batch size 1, 4 heads of 64
# channels, fp32, as in the explorer's GFLOP). The ratio of pairs is an upper bound on the speed-up:
# smaller matrix products and the band's corners, which are computed and thrown away, cost part of
# it.

# %% [markdown] tags=["zh"]
# ## 4 · 实测：随 n 线性增长吗？
#
# 公式：n² 个配对里，窗口留下 n(2w + 1) − w(w + 1) 个（w < n 时）。窗口与全注意力在同一组随机生成的头上交替计时
# （批大小 1，4 个头、每头 64 通道，fp32；上面交互图的 GFLOP 也按此计算）。
# 配对数之比是加速比的上限：矩阵乘法的规模变小，键带的边角算了又扔掉，都会吃掉一部分加速。


# %% tags=["nbval-ignore-output"]
def in_window(q, k, v):
    return window.sliding_window_attention(q, k, v, window_size)


ways = {measure.WINDOW: in_window, measure.FULL: F.scaled_dot_product_attention}
costs = measure.growth(ways, measure.lengths_up_to(max_len))
rows = []
for c in costs:
    n, ours, full = c.seq_len, c.times[measure.WINDOW], c.times[measure.FULL]
    row = {
        "sequence length (tokens)": n,
        "window (ms)": 1e3 * ours.median,
        "full (ms)": 1e3 * full.median,
        "times faster, measured": full.ratio(ours),
        "pairs, full / window (computed)": n * n / window.visible_pairs(n, window_size),
    }
    rows.append(row)
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
written = [measure.written_out_mib(c.seq_len) for c in costs]
speedup.reveal(rows[-1]["times faster, measured"])
show(figures.growth_figure(costs, written))

# %% [markdown] tags=["en"]
# The slope is the exponent. Two things to take home:
#
# - **Time**: full attention's pairs grow with n², the window's with n once the text is much longer
#   than the window. The slopes say how closely the measured time follows; section 8 gives their
#   intervals.
# - **Memory**: fused full attention (SDPA, FlashAttention) is linear already, because it never
#   stores its scores. "Attention needs n² memory" is true only of attention *written out* as
#   softmax(QKᵀ)V, the third line (measured up to 4,096 tokens, computed beyond). Windows are not
#   needed to save that memory; they save time.

# %% [markdown] tags=["zh"]
# 斜率就是指数。有两点值得记住：
#
# - **时间**：全注意力的配对数按 n² 增长；文本远长于窗口时，窗口的配对数只按 n 增长。
#   实际耗时是否照此增长，看斜率；斜率的区间见第 8 节。
# - **内存**：融合的全注意力（SDPA、FlashAttention）本来就是线性的，因为它从不存下分数矩阵。
#   “注意力要 n² 内存”只对*照公式写*的 softmax(QKᵀ)V 成立，即第三条线（4,096 个 token 以内为实测，更长的为计算值）。省这份内存用不着窗口，
#   窗口省的是时间。

# %% [markdown] tags=["en"]
# ### Compared with the libraries
#
# You would not write this yourself if a library did it well. PyTorch's FlexAttention compiles a
# kernel for any mask, but has no gradients on a CPU; the `local-attention` package works in blocks.
# The table below is a record: its settings, machine, versions and command are printed under it. It
# uses 8 heads, so its milliseconds do not compare with those above. Three rows compute the same
# window. BigBird (section 8) sees 2.5 times as many pairs; full attention sees all of them. The
# peak is the speed that a 1024 x 1024 matrix product reaches in the same run; only visible pairs
# count as work.

# %% [markdown] tags=["zh"]
# ### 与现成的库比较
#
# 如果库已经做得很好，就不必自己写。PyTorch 的 FlexAttention 能为任意掩码编译一个内核，但在 CPU 上算不了梯度；
# `local-attention` 包按块计算。下表是存档的结果，表下依次是设置、机器、版本和命令。
# 这里用 8 个头，毫秒数不能与上文直接相比。其中三行算的是同一个窗口；BigBird（第 8 节）看到的配对数是窗口的 2.5 倍，全注意力则看到全部配对。
# 峰值指同一次运行中 1024 × 1024 矩阵乘法达到的速度；只有可见的配对算作有效计算。

# %%
record = read_record(attention_bench.NAME)
bench_rows = sorted(attention_bench.rows_of(record), key=lambda row: row["milliseconds"])
library_rows = [
    {
        "implementation": row["name"],
        "milliseconds": row["milliseconds"],
        "time / FlexAttention": row["over_flex"],
        "time / full attention": row["over_full"],
        "% of the matrix-product peak": 100 * row["peak_share"],
        "MiB beyond q, k, v": row["mib"],
    }
    for row in bench_rows
    if row["seq_len"] == 8192
]
table(library_rows, kind="recorded")
print(record["settings"], "|", record["machine"], "|", record["versions"])
print(record["command"])

# %% [markdown] tags=["en"]
# Another point of this record, measured again on your machine. Most of this cell's time is
# compilation.

# %% [markdown] tags=["zh"]
# 在你的机器上重测这份存档的另一点。这个单元格的时间大多花在编译上。

# %% tags=["nbval-ignore-output"]
before = next(
    row["over_flex"]
    for row in bench_rows
    if row["seq_len"] == 4096 and row["name"] == attention_bench.OURS
)
now = measure.time_over_flex(4096)
what = "our time / FlexAttention's, 4,096 tokens"
recorded_row = dict(quantity=what, ratio=before, kind="recorded")
table([recorded_row, recorded_row | dict(ratio=now, kind="measured")])

# %% [markdown] tags=["en"]
# ## 5 · How far does a stack see?
#
# A token sees w neighbours on each side, and each of these has seen w of its own one layer below.
# So L layers reach L · w tokens on each side. The picture is measured: it marks the inputs for
# which the gradient of the middle token's output is not zero.

# %% [markdown] tags=["zh"]
# ## 5 · 叠起来能看多远？
#
# 一个 token 每侧看到 w 个邻居，而这些邻居在前一层每侧又各自看过 w 个，所以 L 层每侧能看到 L · w 个 token。
# 下图是实测的：对中间那个 token 的输出求梯度，标出梯度不为零的输入位置。

# %%
show(figures.reach_picture(window_size=8, n_layer=6))

# %% [markdown] tags=["en"]
# ## 6 · Swin: windows over an image
#
# Swin cuts an image into patches of 4 × 4 pixels, groups these into windows of w × w patches (7 × 7
# in the paper), and attends inside each window. In our small examples a patch is one pixel. The
# article's listing leaves out the attention itself. What it lacks, and what a working layer needs:
#
# | in the listing | why it fails | in the source below |
# |---|---|---|
# | no attention inside | windows are cut out and put back; nothing is computed | q, k, v, softmax, output projection |
# | a bias table without a head dimension | all heads would share one bias | a table of (2w − 1)² rows, one column per head |
# | no index into the table | a pair of pixels cannot find its entry | `relative_position_index` |
# | a square input assumed | 8 × 20 pixels break it | height and width handled separately |
# | no shift | at one resolution, windows never talk to each other, however many layers there are | `roll`, and a mask across the seam |

# %% [markdown] tags=["zh"]
# ## 6 · Swin：图像上的窗口
#
# Swin 先把图像切成 4 × 4 像素的图块（patch），再把图块分成 w × w 的窗口（论文中为 7 × 7），在每个窗口内做注意力。
# 我们的小例子里，一个图块就是一个像素。文章的代码省略了注意力的实现。缺什么、该怎么补：
#
# | 文章的代码 | 为什么不行 | 下面源码的做法 |
# |---|---|---|
# | 注意力部分被省略 | 只做了 reshape，什么也没算 | q、k、v、softmax、输出投影 |
# | 偏置表没有头这一维 | 所有头只能共用一个偏置 | 表有 (2w − 1)² 行，每个头一列 |
# | 没有查表的索引 | 一对像素找不到自己的那一项 | `relative_position_index` |
# | 假定输入是正方形 | 8 × 20 像素就出错 | 高和宽分开处理 |
# | 没有移位 | 同一分辨率下，无论叠多少层，窗口之间都互不相通 | `roll`，并用掩码隔开接缝两侧 |

# %%
show_source(swin.relative_position_index, swin.shift_mask, swin.WindowAttention)

# %% [markdown] tags=["en"]
# The bias depends only on the signed offset between the two pixels, so most pairs share an entry:
# look for equal colours along the diagonals.

# %% [markdown] tags=["zh"]
# 偏置只取决于两个像素的相对位移（分正负），所以大多数像素对都与别的像素对共用一项：看看沿对角方向相同的颜色。

# %%
show(figures.bias_picture(4))

# %% [markdown] tags=["en"]
# To prove that the code is now complete, we give it and `transformers`' Swin layer the same weights
# and compare the two on an image of 8 × 20 pixels, with a shift. The table then sets the whole
# network's parameters and multiply-accumulates, counted by formula, against the paper's. (What the
# Swin paper calls "FLOPs" are multiply-accumulates: half of what we call FLOPs.)

# %% [markdown] tags=["zh"]
# 下面证明代码已经完整：把同一组权重放进 `transformers` 的 Swin 层，输入 8 × 20 像素的图像，带移位；
# 两边的输出（output）、输入的梯度、偏置表的梯度，相差都应小于 1e-4（True）。再用公式算出整个网络的参数量和乘加数，与论文的表对照。（Swin 论文所说的“FLOPs”是乘加数，等于我们所说 FLOPs 的一半。）

# %%
for name, gap in measure.transformers_gap().items():
    print(f"{name:28} differs by less than 1e-4: {gap < 1e-4}")
count_rows = []
for row in data.read_published("swin"):
    depths = tuple(int(n) for n in row["depths"].split(","))
    params, macs = swin.swin_counts(row["channels"], depths, row["window"], row["image"])
    paper = 1e6 * row["params_millions"], row["gmacs"]
    for kind, (parameters, gmacs) in {"computed": (params, macs / 1e9), "published": paper}.items():
        count_rows.append(dict(model=row["model"], parameters=parameters, GMACs=gmacs, kind=kind))
table(count_rows, digits=4)

# %% [markdown] tags=["en"]
# ### Windows that cannot talk until they shift
#
# A digit of 8 × 8 pixels lies in four windows (orange lines). We change one pixel (×) and mark
# every pixel whose output changes.

# %% [markdown] tags=["zh"]
# ### 不移位就无法交流的窗口
#
# 一幅 8 × 8 像素的数字图像，分成四个窗口（橙线）。改动一个像素（×），标出结果随之变化的所有像素。

# %%
show(figures.talk_picture())

# %% [markdown] tags=["en"]
# Without the shift, three layers see no further than one. So we let a model read the digit from its
# **top-left window alone**, after three layers. Whatever it gets right without the shift comes from
# what the corner shows; what the shift adds comes from the other windows.

# %% [markdown] tags=["zh"]
# 不移位时，叠三层看到的范围并不比一层大。所以让模型经过三层之后，**只凭左上角的窗口**认数字。
# 不移位时认对的，全靠这个角露出的部分；移位后多认对的，靠的是其他窗口传来的信息。

# %% tags=["nbval-ignore-output"]
corner = {shifts: measure.corner_accuracy(shifts, seed=seed) for shifts in ((0, 0, 0), (0, 2, 0))}
rows_corner = [
    {"shift in each layer (pixels)": str(shifts), "accuracy": share}
    for shifts, share in corner.items()
]
table(rows_corner, kind="measured")

# %% [markdown] tags=["en"]
# ## 7 · Where it breaks: recall
#
# The task: in a text of 48 tokens, one of the random symbols is marked, and the last token asks
# which. The marked symbol may stand anywhere, so memorizing positions does not help: the model has
# to find it and carry it to the end. Three layers with windows of 8 reach 24 tokens. Each training
# text draws its own distance (near answers teach the relay that far ones need). After training,
# every distance is tested on 512 fresh texts, where one answer in eight is right by chance. The
# control is the same model with full attention, trained in the same way.

# %% [markdown] tags=["zh"]
# ## 7 · 何时失效：回忆
#
# 任务：文本有 48 个 token，末尾一个是提问，其余是随机符号，其中一个带标记，由最后一个 token 提问它是哪个符号。带标记的符号可以出现在任何位置，
# 所以背位置没有用：模型必须先找到它，再把它传到末尾。三层、窗口为 8，感受野是 24 个 token。
# 训练时每个文本各自随机取一个距离（近处的答案教会模型接力，远处的答案要靠接力）；训练之后，对每个距离
# 各用 512 个新文本测试，随机猜测的准确率是八分之一。对照是同一个模型换成全注意力，训练方法相同。

# %% tags=["nbval-ignore-output"]
narrow = window.window_mask(measure.SEQ_LEN, 8)
runs = [measure.recall(narrow, seed=seed + i) for i in range(measure.N_SEEDS)]
windows = {d: verdicts.of_accuracies([run[d] for run in runs]) for d in measure.DISTANCES}
full_recall = measure.recall(torch.ones_like(narrow), seed=seed)
show(figures.recall_figure(windows, full_recall, reach=8 * measure.N_LAYER))

# %% [markdown] tags=["en"]
# The cliff stands where the reach ends: at 24 tokens the answer arrives, at 25 the model guesses.
# More training would not help, since no path leads there. With full attention, the same training
# recalls at every distance, with few mistakes. (Training takes at most 500 steps of 32 texts. It
# stops early after 20 steps in a row without a mistake, which the model with windows cannot reach.
# Error bars: the wider of Student's t over three seeds and the binomial interval over all texts.)
#
# Too few training steps also make a cliff, *inside* the reach, which is easily mistaken for the
# window's limit: try `measure.recall(narrow, n_steps=200, seed=seed)`.
#
# **Real text.** In `stdlib-gpt` we replace full attention with windows, without retraining. The
# board's 16 held-out excerpts show how many bits per byte it loses; the interval (95%) is that of
# the difference from the shipped model on the same excerpts.

# %% [markdown] tags=["zh"]
# 断崖正好出现在感受野的边界：距离 24 时答案还能传到，距离 25 时模型只能猜。训练再久也没有用，因为没有通路；
# 而换成全注意力，同样的训练在任何距离上都能回忆，只有少量错误。（至多 500 步、每步 32 个文本；连续 20 步无错便提前停止，
# 窗口达不到这一条件。误差线取两者中较宽的：三个种子之间的 t 区间，
# 以及全部文本的二项分布区间。）
#
# 步数太少也会出现断崖，不过是在感受野*之内*，容易被误认为是窗口的局限：不妨试试
# `measure.recall(narrow, n_steps=200, seed=seed)`。
#
# **真实文本。** 把 `stdlib-gpt` 的全注意力换成窗口，不重新训练，看总榜所用的 16 个留出片段上每字节比特数变差多少
# （区间为 95%，取同一批文本片段上的成对差）。

# %% tags=["nbval-ignore-output"]
model = pretrained.load_stdlib_gpt()
quality = {}
for w in (16, 64, 511):
    local_model = window.with_windows(model, w)
    quality[w] = points.language_quality(local_model)
rows_quality = [
    {"window (tokens)": w, "bits per byte": b.mean}
    | {"interval, low": b.low, "interval, high": b.high}
    for w, b in quality.items()
]
table(rows_quality, kind="measured")

# %% tags=["nbval-ignore-output"]
local_model = window.with_windows(model, 64)
point = points.language_point(local_model, quality=quality[64])
board.add(technique="sliding window 64", **point)

# %% [markdown] tags=["en"]
# **Continued training.** A model can adapt to its window, so we train it further with the window in
# place: 200 steps of 4 texts of 512 tokens (AdamW at a learning rate of 0.0003, not tuned). This is
# a record, `efflab experiment window-tuned`, of five seeds, each with its own batches and its own
# 64 held-out excerpts; the rule for section 9 was written down before the first run. The plain
# model, trained further in the same way, shows what those steps do by themselves:

# %% [markdown] tags=["zh"]
# **继续训练。** 模型可以适应窗口，那就带着窗口继续训练：200 步，每步 4 段、每段 512 个 token
# （AdamW，学习率 0.0003，未调参；取自存档，命令是 `efflab experiment window-tuned`：五个种子，
# 各用自己的训练批次和自己的 64 个留出片段；第 9 节所用的规则在第一次运行之前就已写定）。原模型也同样继续训练，可以看出这些训练步本身带来什么：

# %%
runs = read_record(window_tuned.NAME)["runs"]
trained = window_tuned.cases(runs)
names = {
    "window-untrained": "window of 64, not trained further",
    "window-trained": "window of 64, trained further",
    "full-trained": "full attention, trained further",
}
rows_trained = [
    {
        "model": name,
        "bits per byte above the shipped model": trained[key].mean,
        "interval, low": trained[key].low,
        "interval, high": trained[key].high,
    }
    for key, name in names.items()
]
table(rows_trained, kind="recorded", digits=3)

# %% [markdown] tags=["en"]
# The training recovers two thirds of what the window cost, and the model takes a fifth fewer FLOPs
# than with full attention (notebook 14 counts them; an eighth, if only visible pairs count). After
# 200 steps a third is still missing, far more than the 0.05 bits that we had allowed. The steps
# alone do no harm: full attention stays where it was. So a window is not free on texts that it does
# not cover. These steps read 3% of the tokens that the model was trained on; more were not tried.
#
# Longformer's window of 512 (as the paper counts: 256 on each side) was as wide as all that RoBERTa
# had seen. After 2,000 steps of 262,144 tokens each (in all 1,280 times what our 200 steps read),
# on texts of 4,096 tokens, its loss was below RoBERTa's. (The window of 64 without
# further training, the first row, costs 0.406 bits per byte on the record's excerpts, drawn at
# random. The same model costs 0.45 on the board's 16, evenly spaced, and 0.36 on the 8 of exercise 05-4.)

# %% [markdown] tags=["zh"]
# 窗口造成的损失补回了三分之二，而 FLOPs 少五分之一（第 14 篇有计数；若只计可见的配对，则少八分之一）。200 步之后还差三分之一，
# 远多于我们容许的 0.05 比特。训练步本身没有坏处：全注意力的结果停在原处。可见，文本超出窗口时，窗口并非没有代价。
# 这些步读到的 token 只有模型原训练量的 3%；更多的步数没有试过。Longformer 的窗口为 512（按论文的算法，即每侧 256），
# 与 RoBERTa 的全部输入一样宽，在 4,096 个 token 长的文本上训练 2,000 步（每步 262,144 个 token，总量是这里的 1,280 倍），
# 损失就已低于 RoBERTa。（第一行，即未继续训练、窗口 64 的模型，
# 在存档随机抽取的片段上多 0.406 比特；同一个模型，在总榜均匀分布的 16 段上多 0.45，在练习 05-4 的 8 段上多 0.36。）

# %% [markdown] tags=["en"]
# **Sinks.** The heads of a trained model put the weight that they have no use for on the first
# tokens, whatever these say: *attention sinks* (Xiao et al. 2024). A window hides these tokens. We
# give every query the first tokens in addition to its window of 64, again without retraining and on
# the board's 16 excerpts; four tokens from elsewhere are the control.

# %% [markdown] tags=["zh"]
# **汇聚点。** 训练好的模型里，注意力头会把用不上的权重放到最前面的几个 token 上，不管它们是什么：
# 这就是*注意力汇聚点*（attention sink，Xiao 等 2024）。窗口把它们挡在了外面。让每个查询除了宽 64 的窗口之外，
# 还能看到最前面的几个 token，同样不重新训练，仍用总榜的 16 段；对照是别处的四个 token。


# %% tags=["nbval-ignore-output"]
class WithMask:
    def __init__(self, mask):
        self.mask, self.config = mask, model.config

    def __call__(self, ids):
        x = model.embedding(ids)
        for layer in model.layers:
            x = layer(x, self.mask)
        return model.embedding.logits(model.final_norm(x))


sinks = {"none": [], "token 0": [0], "tokens 0 to 3": range(4)}
rows_sinks = []
for name, tokens in (sinks | {"tokens 100 to 103": range(100, 104)}).items():
    mask = window.window_mask(model.config.max_len, 64, causal=True)
    mask[:, list(tokens)] = True  # the model hides the future itself
    bits = points.language_quality(WithMask(mask[None, None]))
    row = {"visible besides the window": name, "bits per byte": bits.mean}
    rows_sinks.append(row | {"interval, low": bits.low, "interval, high": bits.high})
table(rows_sinks, kind="measured")

# %% [markdown] tags=["en"]
# In this run the first four tokens regain part of what the window lost, and more than four others
# do. But each interval is that of the difference from the shipped model, and the intervals overlap,
# so the order of the rows is not proved. Models that stream text through a window keep their first
# tokens. BigBird, which is older, keeps such tokens for another reason: through them every token
# hears every other.

# %% [markdown] tags=["zh"]
# 这次运行中，最前面的四个 token 补回了窗口的一部分损失，比别处的四个补得更多；但各区间都是与原模型之差的区间，
# 而且相互重叠，所以各行的优劣次序并未得到证明。用窗口流式处理文本的模型会保留最前面的 token。BigBird 出现得更早，
# 保留这类 token 另有原因：所有 token 经由它们互通。

# %% [markdown] tags=["en"]
# ## 8 · BigBird: global, window and random blocks
#
# BigBird keeps three kinds of blocks: **window** blocks around the diagonal; **global** blocks,
# which see all blocks and are seen by all; and **random** blocks, a few per row. The layout says
# which blocks are computed; no others are.

# %% [markdown] tags=["zh"]
# ## 8 · BigBird：全局块、窗口块与随机块
#
# BigBird 保留三种块：对角线附近的**窗口**块；看见所有块、也被所有块看见的**全局**块；每行若干个**随机**块。
# 布局规定计算哪些块，也只计算这些块。

# %%
show_source(bigbird.bigbird_layout, bigbird.pieces, bigbird._attend, bigbird._BlockSparse.forward)

# %% [markdown] tags=["en"]
# The tests prove our code equal to dense attention under the same mask. Given the same layout, it
# also equals `transformers`' BigBird layer, where the first and the last block are global and every
# head draws its own random blocks. Ours makes the first blocks global and draws the random blocks
# once for all heads. (That layer draws its random blocks only in training; in evaluation they all
# become block 0.)
#
# Move the three counts. On the left is the layout; on the right, how many layers it takes for one
# block to reach another. First set global and random to 0, which leaves the window alone; then add a
# single global or random block.

# %% [markdown] tags=["zh"]
# 测试证明它与同一掩码下的稠密注意力相等；若换成 `transformers` 的 BigBird 层的布局，也与那一层相等：那一层以首块和末块为全局块，
# 每个头各自抽取随机块；我们以最前面的几块为全局块，随机块只抽一次，所有头共用。
# （该层只在训练时抽取随机块；推理时它们全变成第 0 块。）
#
# 调整三种块的数量。左边是布局，右边是一个块的信息要经过几层才能传到另一个块。先把全局和随机都设为 0，只留窗口；
# 再加一个全局块或一个随机块。

# %%
explore(figures.bigbird_cost)

# %% [markdown] tags=["en"]
# ### Which of the three recalls?
#
# The same task under different layouts of 12 blocks of 4 tokens: one global block, a window of
# three blocks, or three random blocks per row. The last layout combines all three as 1 + 3 + 2, in
# this order. Every row sees its own block. A *hop* is one layer. The column *expected* follows from
# the layout alone, before any training: an answer that can arrive within three hops counts as
# right, any other as a guess.

# %% [markdown] tags=["zh"]
# ### 三者之中谁能回忆？
#
# 同一个任务，换用各种布局，共 12 块、每块 4 个 token：一个全局块，或三块宽的窗口，或每行三个随机块；三者兼有时依次为 1 + 3 + 2；
# 每行都看得到自己的块。一*跳*就是一层。“预期”一列在训练之前就由布局推出：三跳之内能传到的答案算对，其余按随机猜测计。

# %% tags=["nbval-ignore-output"]
recalls = {}
rows_recall = []
for name in measure.LAYOUTS:
    layout = measure.layout_of(name, seed)
    recalls[name] = measure.recall(bigbird.token_mask(layout, measure.BLOCK), seed=seed)
    hops = measure.hops_needed(layout)
    row = {
        "layout": name,
        "% of pairs": 100 * layout.float().mean().item(),
        "hops to cover 40 tokens": str(hops) if hops >= 0 else "never",
        "accuracy at 40 tokens": recalls[name][measure.DISTANCE],
        "mean accuracy, all distances": sum(recalls[name].values()) / len(recalls[name]),
        "expected": measure.expected_accuracy(layout),
    }
    rows_recall.append(row)
table(rows_recall, kind="measured")

# %% [markdown] tags=["en"]
# With a **global** block the path is short by construction: the block hears the answer in one layer
# and passes it to the question in the next, at any distance. **Random** blocks shorten paths to
# about log n hops, so they reach far, but not everywhere: without a window, which distances they
# miss is the luck of the draw. (By the layout alone, of the draws with seeds 0 to 9, four miss one
# to three of the ten distances; six, including seed 0, miss none. With a window, none of the ten
# draws misses any.) The **window** reaches nothing beyond its few blocks; it is there for what text
# needs most, its neighbours. The trained model does what the layout predicts before training.
#
# And the cost: the three sparse methods at seven lengths. Swin treats the tokens as pixels of an
# image, in windows of 16 x 16, so that a token sees about as many keys as in the sliding window.
# Bias, shift and its mask are left out; each would add a term linear in n. BigBird uses 2 global, 3
# window and 3 random blocks of 64 tokens, as in the paper's base model.

# %% [markdown] tags=["zh"]
# 有了**全局**块，路径天然就短：它在一层收到答案，下一层转给提问的 token，与距离无关。**随机**块把路径缩短到约
# log n 跳，因此看得远，但未必处处看得到：没有窗口时，漏掉哪些距离全凭运气。
# （只看布局：种子 0 到 9 的十次抽取中，四次漏掉十个距离中的一到三个，六次一个也不漏，其中就有种子 0；加上窗口后，十次都不漏。）
# **窗口**看不到那几个块以外的任何东西，
# 它负责的是文本最需要的近邻。训练前由布局推出的结论，与训练后模型的表现一致。
#
# 再看代价：三种稀疏做法在七个长度上的耗时。Swin 把 token 当作一幅图像的像素，窗口取 16 x 16，
# 这样每个 token 看到的键与滑动窗口差不多一样多。位置偏置、移位及其掩码没有计入，它们的开销同样与 n 成正比。
# BigBird 用 2 个全局块、3 个窗口块、3 个随机块，每块 64 个 token，与论文的 base 模型相同。


# %% tags=["nbval-ignore-output"]
def in_blocks(q, k, v):
    layout = measure.long_layout(q.shape[2])  # drawn once a length, outside of the time
    return bigbird.block_sparse_attention(q, k, v, layout, attention_bench.BLOCK)


def in_image(q, k, v):
    shape = measure.image_shape(q.shape[2])
    parts = [swin.to_windows(x[0].unflatten(1, shape), measure.SIDE) for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*parts)
    return swin.from_windows(y, measure.SIDE, *shape).flatten(1, 2)


# %% tags=["nbval-ignore-output"]
ways = {measure.WINDOW: in_window, measure.SWIN: in_image, measure.BIGBIRD: in_blocks}
lengths = measure.lengths_up_to(max_len, per_doubling=2)
sparse_costs = measure.growth(ways, lengths, repeats=15)
cost_rows = []
for c in sparse_costs:
    row = {
        "sequence length (tokens)": c.seq_len,
        "window (ms)": 1e3 * c.times[measure.WINDOW].median,
        "Swin (ms)": 1e3 * c.times[measure.SWIN].median,
        "BigBird (ms)": 1e3 * c.times[measure.BIGBIRD].median,
        "BigBird: share of the pairs (computed)": measure.long_layout(c.seq_len)
        .float()
        .mean()
        .item(),
    }
    cost_rows.append(row)
table(cost_rows, kind="measured")

# %% tags=["nbval-ignore-output"]
powers = {name: measure.time_exponent(sparse_costs, name) for name in ways}
powers[measure.FULL] = measure.time_exponent(costs, measure.FULL)
power_rows = [
    {
        "implementation": name,
        "fitted exponent of time in n": power.mean,
        "interval, low": power.low,
        "interval, high": power.high,
    }
    for name, power in powers.items()
]
table(power_rows, kind="measured")

# %% [markdown] tags=["en"]
# ## 9 · Verdict
#
# O(n) means an exponent of 1, neither more nor less: an exponent of 0.5 would be too good to be
# true, a sign of noise or of fixed overhead. So the whole interval of each fit has to lie near 1
# and, as the control, full attention's above 1.5. The verdict also lists what a window cannot
# recall. The cell below looks once more at `attention-quadratic`, which notebook 00 has judged: the
# same crossing, to set beside full attention's exponent above.
#
# The part on time comes from a single run. Of the four recorded runs of the sweep below, one holds
# and three are undecided, because an interval left 0.75 to 1.25 or the control's began below 1.5.
# The part on pairs holds in all four.

# %% [markdown] tags=["zh"]
# ## 9 · 结论
#
# O(n) 意味着指数等于 1，上下两侧都要卡住：若测出 0.5，那就好得不真实了，多半是噪声或固定开销所致。
# 因此要求拟合的整个区间都落在 1 附近；作为对照，全注意力的整个区间须高于 1.5。窗口回忆不了什么，也一并列出。
# 再看一次第 00 篇已经判定的 `attention-quadratic`：还是那个交点，可与上面全注意力的指数对照。
# 耗时这一部分只是一次运行的结果：下文“扫描窗口宽度”存档了四次运行，一次成立，三次未定，因为有区间超出 0.75 到 1.25，
# 或对照的区间下限低于 1.5；配对数那一部分四次都成立。

# %%
crossing = cost.crossing_length(PRESETS["bert-base"], "linear")
what = "tokens beyond which n² exceeds half of a layer's FLOPs (BERT-base)"
table([dict(quantity=what, value=crossing)], kind="computed")

# %% tags=["nbval-ignore-output"]
far = measure.DISTANCE
shares = {
    "recall-within": (24, windows[24]),
    "recall-beyond": (25, windows[25]),
    "recall-full": (25, verdicts.of_accuracies([full_recall[25]])),
    "recall-global": (far, verdicts.of_accuracies([recalls["global"][far]])),
}
evidence = verdicts.time_evidence(powers) + verdicts.recall_evidence(shares)
evidence += verdicts.pairs_evidence(max_len, window_size)
verdict("sparse-linear", verdicts.sparse_linear(evidence))

# %% [markdown] tags=["en"]
# And a statement of this notebook's own, which the article does not make:

# %% [markdown] tags=["zh"]
# 另有一条本篇自己的说法，文章里没有：

# %%
verdict("window-tuned", verdicts.window_tuned(verdicts.trained_evidence(trained)))

# %% [markdown] tags=["en"]
# ## Exercises
#
# **03-1.** How many pairs does a *causal* window leave? Mind short sequences.
#
# <details><summary>Hint</summary>Every query sees itself. A key k steps back exists for n − k queries.</details>

# %% [markdown] tags=["zh"]
# ## 练习
#
# **03-1.** *因果*窗口留下多少个配对？注意序列很短的情形。
#
# <details><summary>提示</summary>每个查询都看到自己。往前第 k 个键，只有 n − k 个查询才有。</details>


# %% tags=["exercise", "ex-03-1"]
def causal_pairs(n, w):
    return ...


# %%
check("03-1", causal_pairs)

# %% [markdown] tags=["solution", "ex-03-1"]
# <details><summary>Solution</summary>
#
# ```python
# def causal_pairs(n, w):
#     w = min(w, n - 1)
#     return n + w * n - w * (w + 1) // 2
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **03-2.** A causal model with a window of 128 reads 8,192 tokens. How many layers does it take for
# information from the first token to reach the last?
#
# <details><summary>Hint</summary>Each layer bridges 128 steps, and there are 8,191 of
# them.</details>

# %% [markdown] tags=["zh"]
# **03-2.** 一个窗口为 128 的因果模型读入 8,192 个 token。要让第一个 token 的信息传到最后一个，需要多少层？
#
# <details><summary>提示</summary>每层走 128 步，一共要走 8,191 步。</details>

# %% tags=["exercise", "ex-03-2"]
answer_2 = ...

# %%
check("03-2", answer_2)

# %% [markdown] tags=["solution", "ex-03-2"]
# <details><summary>Solution</summary>
#
# ```python
# answer_2 = 64  # 8,191 / 128, rounded up
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **03-3.** Longformer adds a few global *tokens* to a window of w tokens on each side (the paper's
# window size is 2w): the first g tokens see all and are seen by all. Return its mask as an (n, n)
# bool tensor.
#
# <details><summary>Hint</summary>Start from |i − j| ≤ w, then set the first g rows and columns.</details>

# %% [markdown] tags=["zh"]
# **03-3.** Longformer 在每侧 w 个 token 的窗口（论文里的窗口大小是 2w）之外，再加几个全局 *token*：前 g 个看到所有 token，也被所有 token 看到。
# 返回它的掩码，即 (n, n) 的 bool 张量。
#
# <details><summary>提示</summary>先写出 |i − j| ≤ w，再把前 g 行和前 g 列置为 True。</details>


# %% tags=["exercise", "ex-03-3"]
def longformer_mask(n, w, g):
    return ...


# %%
check("03-3", longformer_mask)

# %% [markdown] tags=["solution", "ex-03-3"]
# <details><summary>Solution</summary>
#
# ```python
# def longformer_mask(n, w, g):
#     at = torch.arange(n)
#     mask = (at[:, None] - at).abs() <= w
#     mask[:g] = True
#     mask[:, :g] = True
#     return mask
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **03-4 (performance target: beat full attention at 4,096).** With torch alone, write
# `window_attention(q, k, v, w)` (as `answer_4`), for q, k, v of shape (B, H, n, D), w keys on each
# side and any n. It has to match attention under the window's mask and take at most half of full
# attention's time at 4,096 tokens and w = 128.
#
# <details><summary>Hint</summary>128 queries at a time see no more than 128 + 2 w keys: slice these
# out, and give <code>F.scaled_dot_product_attention</code> a mask of that size.</details>

# %% [markdown] tags=["zh"]
# **03-4（性能目标：4,096 个 token 时胜过全注意力）。** 只用 torch 写出 `window_attention(q, k, v, w)`（赋给 `answer_4`）：
# q、k、v 的形状是 (B, H, n, D)，每侧 w 个键，n 任意。结果必须与窗口掩码下的注意力相等；
# 4,096 个 token、w = 128 时，用时至多是全注意力的一半。
#
# <details><summary>提示</summary>每次取 128 个查询，它们只看得到至多 128 + 2 w 个键：切出这些键，
# 再给 <code>F.scaled_dot_product_attention</code> 传入同样大小的掩码。</details>

# %% tags=["exercise", "ex-03-4"]
answer_4 = ...  # def answer_4(q, k, v, w): ...

# %% tags=["nbval-ignore-output"]
check("03-4", answer_4)

# %% [markdown] tags=["solution", "ex-03-4"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_4(q, k, v, w):
#     n, parts = q.shape[2], []
#     for start in range(0, n, 128):
#         at = torch.arange(start, min(start + 128, n))
#         keys = torch.arange(max(0, start - w), min(start + 128 + w, n))
#         mask = (at[:, None] - keys).abs() <= w
#         seen = (x[:, :, keys[0] : keys[-1] + 1] for x in (k, v))
#         parts.append(F.scaled_dot_product_attention(q[:, :, at], *seen, attn_mask=mask))
#     return torch.cat(parts, 2)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# ## The window, swept
#
# One width says little. `efflab sweep` ran this whole notebook at each width on the recorded curves
# below; the star is your own run. Quality is that of `stdlib-gpt` on 512 tokens, not retrained;
# time is the window's at `max_len`, over full attention's in the same run.

# %% [markdown] tags=["zh"]
# ## 扫描窗口宽度
#
# 只看一个宽度说明不了多少问题。`efflab sweep` 用下图中的每个宽度各运行了一遍本篇，曲线是存档；星号是你自己的这次运行。
# 质量取 `stdlib-gpt` 在 512 个 token 上的结果，不重新训练；时间取长度为 `max_len` 时窗口注意力的耗时，与同一次运行中的全注意力相比。

# %% tags=["nbval-ignore-output"]
longest = costs[-1].times
ratio = longest[measure.WINDOW].ratio_interval(longest[measure.FULL])
here = {
    "bits per byte": points.language_quality(window.with_windows(model, window_size)),
    "time relative to full attention": ratio,
}
sweeps.show_sweep("03", window_size, here)

# %% [markdown] tags=["en"]
# ## Recap
#
# - A window makes attention's time linear, but only if the hidden pairs are never computed; a mask
#   alone saves nothing.
# - A fused kernel makes full attention's memory linear without any window.
# - L layers of window w recall up to L · w tokens back, and not one more. Image windows must shift
#   to talk.
# - A global block connects any two tokens in two layers; random blocks also need only a few, with
#   luck. Adding even the first few tokens to a window regains part of what it lost.
# - Training a finished model for 200 more steps with its window regains two thirds of what the
#   window cost; more steps were not tried.
# - A window gains nothing on texts that it covers entirely. The first table of section 4 says how
#   much it gains on longer texts on your machine. To see from which length on it pays, run with
#   `max_len = 2048`, whose table starts at 256 tokens.
#
# **References.** Beltagy et al. 2020, *Longformer*, arXiv:2004.05150. Liu et al. 2021, *Swin
# Transformer*, arXiv:2103.14030. Zaheer et al. 2020, *Big Bird*, arXiv:2007.14062. Xiao et al. 2024,
# *Efficient Streaming Language Models with Attention Sinks*, arXiv:2309.17453. Dong et al. 2024,
# *Flex Attention*, arXiv:2412.05496.
#
# **Next:** [04 · Linformer](04_linformer.ipynb) reaches O(n) another way: it shortens keys and values.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 窗口让注意力的时间变成线性，前提是被遮住的配对从不计算；光有掩码什么也省不下。
# - 内存：用融合内核，全注意力不靠窗口，内存也是线性的。
# - L 层、窗口 w 最远能回忆到 L · w 个 token 之前，再远一个也不行。图像窗口必须移位才能交流。
# - 有全局块，任意两个 token 两层之内就能互通；随机块也只需几层，但要看运气。
#   哪怕只给窗口加上最前面的几个 token，也能补回一部分损失。
# - 让训练好的模型带着窗口继续训练 200 步，能补回三分之二的损失；更多的步数没有试过。
# - 文本若整个落在窗口之内，窗口毫无收益；更长的文本能快多少，见第 4 节第一张表（你的机器）；
#   从多长起才划算，可设 `max_len = 2048` 重新运行，那张表从 256 个 token 开始。
#
# **参考文献。** Beltagy 等 2020，*Longformer*，arXiv:2004.05150。Liu 等 2021，*Swin Transformer*，
# arXiv:2103.14030。Zaheer 等 2020，*Big Bird*，arXiv:2007.14062。Xiao 等 2024，*Efficient Streaming
# Language Models with Attention Sinks*，arXiv:2309.17453。Dong 等 2024，*Flex Attention*，arXiv:2412.05496。
#
# **下一篇：** [04 · Linformer](04_linformer.ipynb) 用另一种办法达到 O(n)：把键和值的序列缩短。
