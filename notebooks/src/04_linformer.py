# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 04 · Linformer: a fixed number of summaries
#
# The article says that Linformer projects keys and values to a fixed size, and that what it
# compresses is their *dimension*. The first half is right; the second can be read in two ways, one
# of them wrong. Here you build the layer, test on a real model whether attention is as low-rank as
# Linformer hopes, and measure what it saves.
#
# | | |
# |---|---|
# | **Claim** | `linformer-fixed` |
# | **Time** | 30 minutes; all cells together run in under 40 seconds |
# | **Afterwards you can** | say which axis Linformer shortens and why that makes it linear; read the spectrum of an attention matrix; tell "each matrix is low-rank" from "one projection fits all"; show why Linformer, as published, cannot be causal |

# %% [markdown] tags=["zh"]
# # 04 · Linformer：固定个数的摘要
#
# 文章说 Linformer 把键和值投影到固定大小，并说被压缩的是它们的*维度*。前半句对；后半句有两种读法，
# 其中一种是错的。本篇将搭出这一层，在真实模型上检验注意力是否像 Linformer 期望的那样低秩，
# 并实测它省下了什么。
#
# | | |
# |---|---|
# | **论断** | `linformer-fixed` |
# | **用时** | 30 分钟；全部单元格合计运行不到 40 秒 |
# | **学完之后** | 能说清 Linformer 缩短的是哪一个轴，开销为何因此变成线性；能读懂注意力矩阵的奇异值谱；能区分“每个矩阵都低秩”与“一个投影适合所有输入”；能说明论文中的这种做法为何做不了因果注意力 |

# %% tags=["parameters"]
language = "en"
n_texts = 4  # held-out library modules whose attention is taken apart, 2 to 8
seq_len = 128  # tokens of each, 64 to 512 in steps of 64
k = 32  # summaries: 1, 2, 4, 8, 16, 32 or 64
longest = 4096  # tokens, for time and memory, 512 to 8192

# %%
import math
from dataclasses import replace
from functools import partial
from statistics import mean

import torch

from efflab import bench, lab, points
from efflab.config import ModelConfig
from efflab.estimate import paired_difference
from efflab.experiments.record import by_seed, read_record
from efflab.lab import board, check, explore, predict, show, table, verdict
from efflab.model import Attention, Transformer
from efflab_rooms import texts
from efflab_rooms.linformer import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("04_linformer", exercises.EXERCISES, texts("linformer"))

# %%
from efflab.experiments import (
    linformer_places,
    linformer_places_2,
    linformer_trained,
    linformer_trained_2,
)
from efflab.structure.linformer import (
    LinformerAttention,
    attention_flops,
    from_attention,
    linformer,
    linformer_attention,
    linformer_flops,
    segment_means,
)

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# Attention over n tokens compares n queries with n keys: n² scores. Linformer multiplies the keys
# and values, from the left, by learned matrices E and F with k rows: this makes k *summaries* of
# the n keys, and k of the n values. Each query then looks at k summaries. With k fixed, the cost is
# linear in n.
#
# That works if every row of the n x n attention matrix is nearly a linear combination of the same k
# rows, that is, if its rank is low. MiniLM is a real encoder with six layers. Take its attention
# matrices for 128 tokens of Python. (The layer in the second question has 128 channels and two
# heads; its longest input is `longest` above. Weights are not counted.)

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# n 个 token 的注意力要让 n 个查询与 n 个键逐一比较，得到 n² 个分数。Linformer 用学得的 k 行矩阵 E、F
# 左乘键和值：把 n 个键、n 个值各做成 k 份*摘要*，每个查询只看这 k 份。k 固定，开销就与 n
# 成正比。
#
# 前提是：n x n 注意力矩阵的每一行都近似为同一组 k 个行向量的组合，也就是秩要低。MiniLM
# 是一个真实的六层编码器。取它处理 128 个 token 的 Python 代码时的注意力矩阵。
# （第二问的层有 128 个通道、两个头；最长输入是上面的 `longest`，权重不计。）

# %%
rank = predict(
    "An attention matrix in MiniLM's first layer has 128 singular values. How many of them hold "
    "90% of the energy (sum of squares), on average over heads?",
    unit="values",
)
memory = predict(
    "How many times the memory of one Linformer layer does full attention without a fused kernel "
    "take, at the longest length below and k = 128?",
    unit="x",
)

# %% [markdown] tags=["en"]
# ## 2 · Build: which axis is shortened?
#
# Linformer's attention is ordinary attention with `E @ k` and `F @ v` in place of k and v. That is
# the last line; the lines above it check shapes:

# %% [markdown] tags=["zh"]
# ## 2 · 动手搭建：缩短的是哪个轴？
#
# Linformer 的注意力就是把普通注意力的 k、v 换成 `E @ k`、`F @ v`，即最后一行；前面几行只检查形状：

# %%
lab.show_source(linformer_attention)

# %% [markdown] tags=["en"]
# `E @ k` (in this code, `k` is the keys) multiplies from the *left*. A key matrix has one row per
# token and one column per channel; a matrix on its left mixes rows. So the **length** shrinks from
# n to k, and the number of channels stays the same. Multiplying from the right, `k @ W`, would
# shrink the channels instead. The article speaks of the attention matrix's key-value "dimension",
# which can mean either. Read as the matrix's key axis, the length n, it is right; read as the
# width, it is wrong. Look at the shape of the scores in both cases:

# %% [markdown] tags=["zh"]
# `E @ k`（这段代码里 `k` 是键）是从*左边*相乘。键矩阵每行是一个 token，每列是一个通道；左乘混合的是行。所以从 n 缩到 k
# 的是**长度**，通道数不变。若从右边乘（`k @ W`），缩小的才是通道。文章说的是注意力矩阵的键值“维度”，
# 这个词有歧义：指长度 n（矩阵的键轴）则对，指宽度则错。两种情况下的分数矩阵分别是什么形状？

# %%
queries, keys = torch.randn(2, 1024, 64)  # n = 1024 tokens, 64 channels
E, W = torch.randn(128, 1024), torch.randn(64, 16)
scores = {
    "full attention": queries @ keys.T,
    "length projected, E @ keys": queries @ (E @ keys).T,
    "width projected, keys @ W": (queries @ W) @ (keys @ W).T,
}
for name, matrix in scores.items():
    print(f"{lab.tr(name):27}", tuple(matrix.shape))

# %% [markdown] tags=["en"]
# Shrinking the width leaves n² scores: cheaper by a constant factor, but still quadratic. Shrinking
# the length is what makes Linformer linear.
#
# Two checks on our layer. With k = n and E = F = I, the identity, it has to equal full attention.
# And E and F are parameters themselves: fewer if the heads share them, and fewer still if keys and
# values do too:

# %% [markdown] tags=["zh"]
# 缩小宽度后分数仍有 n² 个：只便宜一个常数倍，依旧是平方级。缩短长度，Linformer 才是线性的。
#
# 再做两项检查。当 k = n 且 E = F = I（单位矩阵）时，它必须等于全注意力。另外 E 和 F 本身也是参数：
# 各头共享则少一些，键和值也共享就更少。

# %%
full = Attention(d_model=64, n_head=4)
same = from_attention(full, max_len=32, k=32, share="kv")
with torch.no_grad():
    same.E.copy_(torch.eye(32))
x = torch.randn(1, 32, 64)
print(lab.tr("equal to full attention:"), torch.allclose(same(x), full(x), atol=1e-5))
for share in ("none", "heads", "kv"):
    layer = LinformerAttention(64, 4, max_len=512, k=128, share=share)
    n_weights = sum(p.numel() for p in {layer.E, layer.F})
    print(f"share={share:6} ", lab.tr("E and F: {n:,} parameters", n=n_weights))

# %% [markdown] tags=["en"]
# ## 3 · Measure: is real attention low-rank?
#
# We run a few modules of the standard library through MiniLM, collect all 6 x 12 attention matrices
# of each, and compute their singular values. The best approximation of rank k, an n x k matrix
# times a k x n one, keeps the k largest (Eckart and Young). So no method that replaces the matrix P
# by such a product, as Linformer does, can come closer to P. That bounds the error of the *matrix*,
# not of the layer's output: PV has only the head's 32 channels, so with k = 32 some other matrix
# gives it exactly. (Energy is a sum of squares; the errors in the figures are norms, that is, its
# square root: with 10% of the energy missing, the error is 32%.)

# %% [markdown] tags=["zh"]
# ## 3 · 实测：真实的注意力低秩吗？
#
# 我们把几个标准库模块送进 MiniLM，收集每个文本的全部 6 x 12 个注意力矩阵，求奇异值。
# 最佳秩 k 近似（n x k 矩阵乘以 k x n 矩阵）就是保留最大的 k 个奇异值（Eckart–Young 定理）：
# 凡是像 Linformer 这样用这种乘积代替矩阵 P 的方法，都不可能更接近 P。但这是*矩阵*误差的下界，不是该层输出误差的下界：每个头只有 32 个通道，
# k = 32 时总能找到另一个矩阵，精确给出 PV。（能量是平方和；图中的误差是范数，即它的平方根：
# 还有 10% 的能量没保住，误差就是 32%。）

# %% tags=["nbval-ignore-output"]
minilm, tokenizer = points.encoder()
held_out = measure.windows(tokenizer, "held-out", n_texts, seq_len)
matrices = measure.attention_matrices(minilm, held_out)
values = torch.linalg.svdvals(matrices)
print(tuple(matrices.shape), lab.tr("layers, texts, heads, queries, keys"))
rank.reveal(round(measure.ranks_for(values)[0].float().mean().item(), 1))

# %% tags=["nbval-ignore-output"]
show(figures.spectrum_figure(values))

# %% [markdown] tags=["en"]
# The paper found that higher layers have lower rank (in RoBERTa at 512 tokens, by the sum of the
# singular values themselves, which gives larger ranks than squares). On the whole, that holds here
# too: in the last layers, a handful of directions hold nine tenths of the energy in most heads. But
# "attention is low-rank" is an average. In the first three layers, most heads need few directions
# too, but several heads need a quarter of all directions or more, and one nearly all. Layer 5
# also has one head that needs over a quarter: 35 of 128 directions. A head that looks only at each token's
# neighbour, for instance, has a shifted identity matrix: its rank is n - 1, and all of its n - 1
# singular values are equally large.
#
# ### Low-rank is not enough
#
# The SVD chooses k directions *for each matrix*, after that matrix has been computed. Linformer's E
# and F are weights: chosen once, for all texts. So there is a second question: is there **one**
# projection that fits every text? We learn the best one from other modules (a principal component
# analysis of the rows), test it on the held-out ones, and compare it with a random one.

# %% [markdown] tags=["zh"]
# 论文发现层越高，秩越低（RoBERTa，512 个 token，累加的是奇异值本身，得到的秩比累加平方时大），这里大体也一样：
# 在最后几层，多数头只要几个方向就占到九成能量。但“注意力是低秩的”只是平均而言：前三层的多数头也只需少数方向，
# 却有几个要四分之一以上，有一个几乎要全部；第 5 层也有一个头要 128 个方向中的 35 个。例如只看相邻 token 的头，其矩阵就是错开一位的单位矩阵：
# 秩是 n - 1，而且这 n - 1 个奇异值一样大。
#
# ### 低秩还不够
#
# SVD 是在矩阵算出来之后，*为每个矩阵*分别挑选 k 个方向。Linformer 的 E 和 F 却是权重：一次定好，
# 用于所有文本。于是还有第二个问题：有没有**一个**投影适合所有文本？我们用另一些模块学出最好的一个
# （对各行做主成分分析），再拿未见过的文本测试，并与随机投影对照。

# %% tags=["nbval-ignore-output"]
others = measure.windows(tokenizer, "train", 6 * n_texts, seq_len)
learned = measure.shared_basis(measure.attention_matrices(minilm, others))
rng = torch.Generator().manual_seed(0)
random = torch.linalg.qr(torch.randn(learned.shape, generator=rng)).Q.mT
show(figures.projection_figure(values, matrices, learned, random))

# %% [markdown] tags=["en"]
# This is the figure to remember. In the last layer, each text needs only a few directions of its
# own. One fixed set has to serve all texts; after its first few directions, each further one gains
# no more than a random one would. In text, *where* the important tokens stand changes from one
# input to the next, and E knows only positions. Linformer works anyway because the paper **trains
# the whole network with E and F in it**: queries, keys and values adapt. If we put E and F into a
# finished model and change nothing else, the layer's output is mostly wrong:

# %% [markdown] tags=["zh"]
# 请记住这张图。在最后一层，每个文本只需自己的少数方向；固定的一组却要服务所有文本，而且在最初几个方向之后，
# 每多一个方向的收益并不比随机的更大。在文本里，重要的 token 出现在*哪里*因输入而异，而 E
# 只认位置。Linformer 之所以仍然可用，是因为论文**带着 E 和 F 训练整个网络**：查询、键、
# 值都会随之适应。若把它们直接放进训练好的模型，别的都不动，这一层的输出大半是错的：

# %% tags=["nbval-ignore-output"]
many = measure.layer_inputs(minilm, measure.windows(tokenizer, "train", 24 * n_texts, seq_len))
new = measure.layer_inputs(minilm, held_out)
rows = []
for i in (0, len(minilm.layers) - 1):
    errors = measure.drop_in_errors(minilm.layers[i].attention.body, many[i], new[i], k)
    row = {
        "layer": i + 1,
        "k": k,
        "random E, F: error (%)": errors["random"].mean,
        "segment means: error (%)": errors["means"].mean,
        "fitted E, F: error (%)": errors["learned"].mean,
        "fitted E, F: error on the fitting texts (%)": errors["own"].mean,
        "best rank-k matrix per text: error (%)": errors["best"].mean,
    }
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Segment means simply average each stretch of neighbouring tokens. This is the paper's own mean
# pooling (its section 4), which also lifts the limit on the input's length. The fitted E and F
# start from segment means, with one pair for all heads, and are fitted on 24 times as many other
# texts. Most of the gain is on those texts. On new texts, the last layer stays far off, and more
# steps only widen the gap (try `measure.drop_in_errors(..., n_steps=1000)`). So longer fitting does
# not help. The gap between new and fitted texts suggests that more texts might, but even on the
# fitted ones half of the last layer's output is wrong. The last column applies each text's best
# matrix of rank k to the values.
#
# How do segment means affect the whole model? At its end, it averages the vectors of all tokens
# into one, which hides much of the error. Both models go on the board, where the task is to find
# functions by their docstrings. Quality is the MRR, the mean over all queries of 1 / rank of the
# right function. We use the board's setting: 60 functions, texts cut at 64 tokens. Other notebooks
# that search among more functions, or cut elsewhere, have other MRRs for the same model. With
# k = 32 of 64, a segment is two tokens, and Linformer takes as many FLOPs as full attention: this
# point shows the loss of quality alone. A short docstring fills only a few of the 32 summaries. The
# layer masks the empty ones, because a score of 0 would still put exp(0) into the softmax.

# %% [markdown] tags=["zh"]
# 分段平均就是把相邻的一段 token 直接取平均，即论文自己的平均池化（第 4 节），它还让输入长度不再受限。
# E 和 F 从分段平均出发，各头共用一对，在另一批文本上拟合，数量是测试文本的 24 倍。误差的下降多半只体现在拟合所用的文本上：
# 换成新文本，最后一层仍然偏差很大，增加步数（可试 `measure.drop_in_errors(..., n_steps=1000)`）只会拉大差距。
# 可见延长训练没有用；新文本与拟合所用文本之间的差距说明，增加文本或许有用，但即使在后者上，最后一层的输出也有一半是错的。最后一列是把每个文本的矩阵换成它的最佳秩 k 近似，再与值相乘。
#
# 整个模型换用分段平均，会受多大影响？模型最后把所有 token 的向量平均成一个，这很能掩盖误差。
# 两个点都放上总榜，任务是凭文档字符串找函数；质量用 MRR 衡量，即“1 / 正确函数的名次”对所有查询取平均。
# 这里用的是总榜的口径：60 个函数，文本截到 64 个 token。64 个 token 取 k = 32 时，一段只有两个 token，
# FLOPs 与全注意力相同，所以这个点只显示质量的损失。别的几篇里候选函数更多，或截断长度不同，
# 同一个模型的 MRR 也就不同。短的文档字符串只占 32 份摘要中的几份；空摘要由该层排除在外，
# 否则它们虽然分数为 0，仍会在 softmax 里各占 exp(0)。

# %% tags=["nbval-ignore-output"]
averaged = linformer(minilm, 64, k, "kv")  # for texts of 64 tokens
for layer in averaged.layers:
    layer.attention.body.E.data = segment_means(k, 64)
models = {"baseline": minilm, "Linformer, segment means, not retrained": averaged}
for technique, model in models.items():
    encode = points.encode_with(model)
    board.add(technique=technique, **points.encoder_point(encode, points.weight_bytes(model)))

# %% [markdown] tags=["en"]
# ### Trained with its projections
#
# So the network has to learn with E and F in it. Ours is small: two layers of 64 channels that read
# 128 bytes of Python at a time, with 30% of them masked and predicted from both sides. All variants
# start with the same weights and see the same batches for 700 steps. A single `linformer(...)` adds
# E and F to the parameters; training the network then trains them too, unless `requires_grad_`
# turns that off:

# %% [markdown] tags=["zh"]
# ### 连同投影一起训练
#
# 可见网络得带着 E 和 F 一起学。我们的网络很小：两层、64 个通道，每次读 128 个字节的 Python 源码，遮住其中
# 30%，根据前后文来猜。各种做法的初始权重相同，700 步中每一批数据也相同。一句 `linformer(...)` 就把 E 和 F 放进
# 参数里；训练网络的同时也就训练了它们，除非用 `requires_grad_` 关掉：

# %% tags=["nbval-ignore-output"]
lab.show_source(linformer_trained.make)
small = linformer_trained.make("started", seed=0)
linformer_trained.masked_loss(small, *linformer_trained.masked_windows("train", 16, 0)).backward()
print(lab.tr("after one backward pass, E and F have gradients too:"))
for name, weight in small.named_parameters():
    if name.endswith((".E", ".F")):
        print(
            f"{name}  {tuple(weight.shape)}  |gradient| = {lab.number(weight.grad.norm().item())}"
        )

# %% [markdown] tags=["en"]
# A run takes about a minute, so the results come from a record (made by
# `efflab experiment linformer-trained-2`): five seeds, each with its own batches and its own 256
# held-out windows. Two variants are controls:
#
# - A **mean of all bytes** in place of attention has to be much worse, or this network would not
#   need attention.
# - **E and F fitted** to a network that was trained with full attention, and that does not adapt to
#   them, have to be worse too. A fit goes on until 200 more steps lower the loss by less than 0.01
#   nats.

# %% [markdown] tags=["zh"]
# 一次训练约需一分钟，所以结果取自存档（命令是 `efflab experiment linformer-trained-2`）：五个种子，各用自己的训练批次
# 和自己的 256 个留出窗口。各种做法中有两种是对照。把注意力换成**全部字节的平均**，必须差得多，否则这个网络根本不需要注意力。
# 全注意力的网络训练好之后，只**拟合 E 和 F** 而网络不随之适应，也必须更差；拟合一直进行到再走 200 步，
# 损失的下降也不到 0.01 nat 为止。


# %%
def loss_rows(losses, names, column):
    rows = []
    for variant, name in names.items():
        over = paired_difference(losses[variant], losses["full"])
        row = {"attention": name, column: mean(losses[variant]), "above full attention": over.mean}
        rows.append(row | {"interval, low": over.low, "interval, high": over.high})
    return rows


# %%
runs = read_record(linformer_trained_2.NAME)["runs"]
trained, losses = linformer_trained.cases(runs), by_seed(runs, "variant", "loss")
names = {
    "full": "full attention",
    "eighth": "16 summaries, E and F trained",
    "quarter": "32 summaries, E and F trained",
    "half": "64 summaries, E and F trained",
    "started": "32 summaries, E and F trained, starting from segment means",
    "means": "32 segment means, network trained with them",
    "fitted": "32 summaries, only E and F fitted to the trained network",
    "uniform": "mean of all bytes",
}
rows = loss_rows(losses, names, "loss (nats per masked byte)")
table(rows, kind="recorded", digits=3)

# %%
show(figures.trained_figure(trained))

# %% [markdown] tags=["en"]
# **Both controls pass.** Without attention, the network is far off. Projections that it was not
# trained with cost it dearly, although their fit has converged: it starts from segment means and
# gains little beyond them.
#
# But **the published way, E and F random at first, closed only a quarter of the gap** between the
# mean of all bytes and full attention in these 700 steps. Twice as many summaries, with which no
# FLOPs are saved any more, barely help. Even projections fitted afterwards, in a few hundred
# further steps, do better. So what it lacks seems to be training rather than summaries: the paper's
# networks were trained for 250,000 steps. Also, all variants use the learning rates that a pilot
# chose by full attention and the mean of all bytes alone.
#
# **Where E and F start matters more here than k.** With plain segment means that are never trained,
# the same network closes more than half of the gap between the mean of all bytes and full
# attention: segments at least tell near from far. Letting E and F learn from there made it worse
# again in these 700 steps (compare the two rows with segment means). That need not be Linformer's
# fault: E and F use AdamW's learning rate of 0.005, which was never tuned for them.
#
# One possible reason for the remaining gap: E knows only positions, and in text the same position
# holds something else in every window. In an image of a digit, a position means the same each time,
# so a few summaries of positions should be enough. To test this, the same network predicts masked
# pixels of scikit-learn's digits (another record, `linformer-places-2`, with twelve other seeds):

# %% [markdown] tags=["zh"]
# **两个对照都通过了。** 没有注意力，网络差得很远；没有与网络一起学过的投影，代价也很大，尽管拟合已经收敛：
# 拟合从分段平均出发，此后改进很少。但**论文的做法（E 和 F 起初随机）在这 700 步里只补上了**“全部字节的平均”
# 与全注意力之间差距的**四分之一**；摘要加倍（此时计算量已毫无节省）也几乎无济于事。
# 连事后另用几百步拟合的投影都比它好。看来缺的是训练，而不是摘要的份数：论文的网络训练了 250,000 步。
# 另外，各种做法用的学习率相同，是试跑时只凭全注意力和“全部字节的平均”选定的。
#
# **在这里，E 和 F 从哪里开始，比 k 更要紧。** 只用从不训练的普通分段平均，同一个网络就补上了“平均”与全注意力之间差距的一大半：
# 分段至少把近处与远处区分开。而让 E 和 F 从那里开始学习，
# 700 步之内反而更差（比较表中两行）。这未必怪 Linformer：
# E 和 F 用的是 AdamW 的学习率 0.005，从未为它们调过。
#
# 余下的差距可能有这样一个原因：E 只认位置，而文本的同一位置，在每个窗口里内容都不同。手写数字的图像则不然，
# 同一位置每次含义都一样，照理只要少数几份按位置做的摘要就够了。于是让同一个网络去猜 scikit-learn 手写数字中被遮的像素
# （另一份存档 `linformer-places-2`，另取十二个种子）：

# %%
runs = read_record(linformer_places_2.NAME)["runs"]
places, losses = linformer_places.cases(runs), by_seed(runs, "variant", "loss")
names = {
    "full": "full attention",
    "started": "16 summaries of 64 pixels, trained, starting from segment means",
    "uniform": "mean of all pixels",
}
rows = loss_rows(losses, names, "loss (nats per masked pixel)")
table(rows, kind="recorded", digits=3)

# %% [markdown] tags=["en"]
# What attention is worth here is the gap between the mean of all pixels and full attention. Sixteen
# summaries keep about three quarters of it, with half of the FLOPs in attention's products. Even
# twelve seeds cannot tell whether their cost stays within the 0.05 nats that we allow: it lies
# right at the bar, and its interval spans the bar. On text, the same start kept half. (We did not
# run fixed segment means on images, and a batch there is 32 images of 64 pixels, not 16 windows of
# 128 bytes, so positions need not be the reason.)
#
# What about computation? With a quarter as many summaries as positions, attention's products take
# half as many FLOPs at every length. (Here k grows with n, so the cost is still quadratic; section
# 4 keeps k fixed.) But with a few dozen positions these products are a small part of this network,
# so the saving shows in its time only where the input is long:

# %% [markdown] tags=["zh"]
# 注意力在这里的价值，就是“平均”与全注意力之间的差距；十六份摘要保住了其中约四分之三，而注意力的矩阵乘法只要
# 一半 FLOPs。代价是否在我们容许的 0.05 nat 之内，十二个种子也判断不了：它恰好就在界限附近，区间跨过了界限。
# 在文本上，同样的起点只保住一半。（图像上没有试不训练的分段平均，而且每批是 32 幅
# 64 像素的图像，而不是 16 个 128 字节的窗口，所以原因未必在于位置。）
#
# 计算开销又如何？摘要份数取长度的四分之一时，无论输入多长，注意力的矩阵乘法都只要一半 FLOPs。
# （这里 k 随 n 增大，开销仍是平方级；第 4 节才固定 k。）但只有几十个位置时，
# 这些乘法在这个网络里只占一小部分，所以要输入很长，耗时上才看得出来：

# %% tags=["nbval-ignore-output"]
rows = []
for n in (64, 128, 2048):
    config = replace(linformer_trained.CONFIG, max_len=n)
    ids = torch.zeros(4096 // n, n, dtype=torch.long)
    networks = [linformer_trained.make(v, 0, config) for v in ("full", "started")]
    with torch.inference_mode():
        full_call, less_call = (partial(network.encode, ids) for network in networks)
        compared = bench.compare(full_call, {"Linformer": less_call}, 1, 7)
    saved = linformer_flops(n, n // 4, 64) / attention_flops(n, 64)
    row = {"n": n, "k": n // 4}
    row |= {"FLOPs of attention's products / full attention's (computed)": saved}
    ratio = compared.ratios["Linformer"].with_noise(compared.band)
    row |= {"time of the whole network / full attention's": ratio.mean}
    rows.append(row | {"interval, low": ratio.low, "interval, high": ratio.high})
table(rows, kind="measured", digits=3)

# %% [markdown] tags=["en"]
# ## 4 · Measure: time and memory
#
# Per sequence and layer, with 2 FLOPs per multiply-accumulate:
#
# | | matrix products | scores in memory |
# |---|---|---|
# | full attention | 4 n² C | H n² |
# | Linformer | 8 n k C | H n k |
#
# C is the number of channels, H the number of heads. The layer below has C = 128 and H = 2; the
# FLOPs in its table also count the four projections, 8 n C² on both sides. Half of Linformer's
# products go into making the summaries. The paper compared with attention that keeps all its scores
# in memory. Today there is a fused kernel that never writes them, so we compare with both.

# %% [markdown] tags=["zh"]
# ## 4 · 实测：时间与内存
#
# 每条序列、每一层的开销如下，一次乘加计 2 FLOPs：
#
# | | 矩阵乘法 | 内存里的分数 |
# |---|---|---|
# | 全注意力 | 4 n² C | H n² |
# | Linformer | 8 n k C | H n k |
#
# C 是通道数，H 是头数。下面的层取 C = 128、H = 2；表中的 FLOPs 还计入四个投影，两边各 8 n C²。
# Linformer 的乘法有一半花在制作摘要上。论文的对照是把全部分数存在内存里的注意力。
# 如今有了从不写出分数的融合内核，所以我们与两者都作比较。

# %% tags=["nbval-ignore-output"]
lengths = [longest // 8, longest // 4, longest // 2, longest]
costs = measure.costs(lengths, ks=(128, 256))
cost_rows = [
    {
        "n": c.seq_len,
        "k": c.k,
        "FLOPs, full / Linformer (computed)": c.flop_ratio,
        "speed-up over unfused (x)": c.speedup,
        "speed-up over fused (x)": c.fused_speedup.mean,
        "interval, low": c.fused_speedup.low,
        "interval, high": c.fused_speedup.high,
        "memory, unfused / Linformer": c.memory_saving,
        "memory, fused / Linformer": c.fused_memory_saving,
    }
    for c in costs
]
table(cost_rows, kind="measured")
last = next(c for c in reversed(costs) if c.k == 128)
memory.reveal(round(last.memory_saving, 1))

# %% tags=["nbval-ignore-output"]
show(figures.cost_figure(costs))

# %% [markdown] tags=["en"]
# The left panel shows time, the right panel memory, each against both ways of computing full
# attention. The paper timed a whole model, with one projection shared by all layers, on another
# machine, and measured memory by the largest batch that fits, so compare the curves' shapes, not
# their heights.
#
# The fused kernel's memory is linear in n too, so against it nothing is left to save. What remains
# of Linformer's advantage is time, at lengths well beyond 2 k; the table has the intervals. Memory
# here is what a call allocates, without the weights. At n = 4,096 and k = 128, E and F themselves,
# shared by the heads, take another 4 MiB, beside roughly 10 MiB that the call allocates. With them,
# Linformer takes more memory than the fused kernel.

# %% [markdown] tags=["zh"]
# 论文测的是另一台机器上的整个模型，且所有层共用一个投影，内存一项比的是放得下的最大批次，所以请看曲线的走势，不要比高低。
# 左图是时间，右图是内存，各与全注意力的两种算法对照。融合内核的内存同样与 n 成正比，与它相比已无可省；
# Linformer 剩下的优势是时间，而且要在长度远超 2 k 时才显现。区间见表。
# 这里的内存是一次调用所分配的，不含权重。n = 4,096、k = 128 时，各头共用的 E 和 F 本身另占 4 MiB，
# 而一次调用约分配 10 MiB；算上它们，Linformer 比融合内核占得更多。

# %% [markdown] tags=["en"]
# ## 5 · Explore
#
# The figure shows a layer of BERT-base: 768 channels, 12 heads. Raise k until Linformer no longer
# saves FLOPs: what fraction of n is k then? Then take a long sequence and compare the size of E and
# F with that of the layer's own projections. Finally, let E and F be shared.

# %% [markdown] tags=["zh"]
# ## 5 · 探索
#
# 图中是 BERT-base 的一层：768 个通道、12 个头。不断增大 k，直到 Linformer 不再节省计算：那时 k 与 n 的比例是多少？再取一个长序列，
# 看看 E 和 F 的参数量与本层的 Q、K、V、输出投影相比有多大，然后改成共享。

# %%
explore(figures.k_and_n)

# %% [markdown] tags=["en"]
# ## 6 · Where it breaks: as published it leaks
#
# A language model must not look ahead, and ordinary attention hides the future with a mask over the
# scores. Linformer has no place for a mask: every summary is a weighted sum of *all* tokens, later
# ones included, and a sum cannot be unmixed. (It can be built up: a running sum of E's columns
# times the keys gives every prefix its own summaries, for k · D additions per token. But then each
# position has to keep k summaries of its own, and the layer is no longer the published one.)
#
# A sharp test: train on *random* symbols. Nobody can predict them, so an honest model's loss is ln
# 8 at best. A model that gets below it has seen the answer.

# %% [markdown] tags=["zh"]
# ## 6 · 何时失效：按论文的做法会泄漏
#
# 语言模型不能偷看后文，普通注意力靠掩码遮住一部分分数来隐藏后文。Linformer 却没有可以遮的地方：
# 每份摘要都是*全部* token 的加权和，后文也在里面，而和是拆不开的。（不过求和可以逐步累加：把 E 的各列乘以键
# 做前缀和，每个 token 只需 k · D 次加法，每个前缀就有了自己的摘要。但这样每个位置都要保存自己的 k 份摘要，
# 也就不再是论文里的那一层了。）
#
# 一个严格的检验：在*随机*符号上训练。谁也猜不到随机符号，只要不偷看答案，损失最好也就是 ln 8。低于它，
# 就说明偷看了。


# %% tags=["nbval-ignore-output"]
def small_model(causal):
    torch.manual_seed(0)
    return Transformer(ModelConfig(2, 2, 32, 64, vocab_size=8, max_len=16, causal=causal))


models = {"causal attention": small_model(causal=True)}
models["Linformer"] = linformer(small_model(causal=False), max_len=16, k=8)
leak_rows = []
for name, model in models.items():
    row = {
        "attention": name,
        "loss on random symbols (nats per symbol)": measure.learn_random_symbols(model),
        "lowest honest loss, ln 8 (computed)": math.log(8),
        "shift of the first logits when the last symbol changes": measure.first_answer_shift(model),
    }
    leak_rows.append(row)
table(leak_rows, kind="measured")

# %% [markdown] tags=["en"]
# Linformer "predicts" pure chance: it reads the next symbol out of the summaries. Such a model has
# a wonderful training loss and writes nonsense. Two more limits: E has `max_len` columns, so the
# longest input is fixed when the model is made; and a shorter text uses only the leading columns,
# which with segment means leaves the other summaries empty.

# %% [markdown] tags=["zh"]
# Linformer 居然“预测”出了纯粹随机的符号：它从摘要里读出了下一个符号。这样的模型训练损失漂亮，写出来
# 的却是胡话。还有两点限制：E 有 `max_len` 列，所以最长输入在创建模型时就定死了；较短的文本只用到前面几列，
# 若用分段平均，其余的摘要就是空的。

# %% [markdown] tags=["en"]
# ## 7 · Verdict
#
# A fixed size shows in the cost of a query: at twice the length it stays the same, while full
# attention's doubles. The first part of the claim counts FLOPs; the second times whole layers,
# projections included. The times are this machine's, and a noisy run may leave the second part
# undecided.
#
# Two statements of our own follow, not counted among the article's claims: how much loss the
# summaries cost the networks of section 3 that were trained with them, on text and on images. Both
# rules were registered before the records began, with seeds that no record had used. A small
# network trained for 700 steps says nothing about the paper's networks, which were trained for
# 250,000 steps.

# %% [markdown] tags=["zh"]
# ## 7 · 结论
#
# 大小固定，就应体现在一个查询的开销上：长度加倍，开销不变，而全注意力要翻倍。第一部分数 FLOPs，
# 第二部分给整层计时，投影也算在内；结果取决于本机的计时，噪声大时可能判为未定。
#
# 随后两条是我们自己的论断，不计入文章的论断：第 3 节带着摘要一起训练的网络，在文本和图像上损失要高多少。
# 两条规则都在存档开始之前登记，所用种子此前没有任何存档用过。
# 小网络训练 700 步，说明不了论文里的网络，它们训练了 250,000 步。

# %% tags=["nbval-ignore-output"]
flops = [
    [measure.attention_core_flops(n, kept) for n in (longest // 2, longest)] for kept in (128, None)
]
token = measure.token_costs(longest, k=128)
over_fused = last.over_fused.with_noise(last.band), 1 / last.fused_memory_saving
evidence = verdicts.query_evidence(*flops)
evidence += verdicts.layer_evidence(token, errors, over_fused)
verdict("linformer-fixed", verdicts.linformer_fixed(evidence))

# %%
verdict("linformer-trained", verdicts.linformer_trained(verdicts.trained_evidence(trained)))

# %%
verdict("linformer-places", verdicts.linformer_places(verdicts.trained_evidence(places)))

# %% [markdown] tags=["en"]
# ## 8 · Exercises
#
# **04-1.** Write `extra_weights(n_layer, n_head, max_len, k, share)` (as `answer_1`): how many parameters E and
# F add to a model, for `share` "none", "heads" and "kv".
#
# <details><summary>Hint</summary>
#
# One matrix has k x max_len entries. How many matrices does a layer have in each case?
#
# </details>

# %% [markdown] tags=["zh"]
# ## 8 · 练习
#
# **04-1。** 写出 `extra_weights(n_layer, n_head, max_len, k, share)`（赋给 `answer_1`）：`share` 取 "none"、"heads"、
# "kv" 时，E 和 F 给模型增加多少参数。
#
# <details><summary>提示</summary>
#
# 一个矩阵有 k x max_len 个元素。三种情况下每层各有几个矩阵？
#
# </details>

# %% tags=["exercise", "ex-04-1"]
answer_1 = ...  # def extra_weights(n_layer, n_head, max_len, k, share): ...

# %%
check("04-1", answer_1)

# %% [markdown] tags=["solution", "ex-04-1"]
# <details><summary>Solution</summary>
#
# ```python
# def extra_weights(n_layer, n_head, max_len, k, share):
#     matrices = {"none": 2 * n_head, "heads": 2, "kv": 1}[share]
#     return n_layer * matrices * k * max_len
#
#
# answer_1 = extra_weights
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **04-2.** Write Linformer's attention without `scaled_dot_product_attention`:
# `attend(q, key, value, E, F)` (as `answer_2`) with q, key, value of shape (B, H, T, D) and E, F of
# shape (k, T).
#
# <details><summary>Hint</summary>
#
# Shorten the length first. The scale is the square root of D, which the projections do not change.
#
# </details>

# %% [markdown] tags=["zh"]
# **04-2。** 不用 `scaled_dot_product_attention`，写出 Linformer 的注意力：
# `attend(q, key, value, E, F)`（赋给 `answer_2`），其中 q、key、value 的形状是 (B, H, T, D)，E、F 是 (k, T)。
#
# <details><summary>提示</summary>
#
# 先缩短长度。缩放因子是 D 的平方根，投影没有改变 D。
#
# </details>

# %% tags=["exercise", "ex-04-2"]
answer_2 = ...  # def attend(q, key, value, E, F): ...

# %%
check("04-2", answer_2)

# %% [markdown] tags=["solution", "ex-04-2"]
# <details><summary>Solution</summary>
#
# ```python
# def attend(q, key, value, E, F):
#     keys, values = E @ key, F @ value
#     scores = q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5
#     return scores.softmax(-1) @ values
#
#
# answer_2 = attend
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **04-3.** At n = 512, at which k does Linformer take as many FLOPs as full attention?
#
# <details><summary>Hint</summary>
#
# Set 4 n² C and 8 n k C equal.
#
# </details>

# %% [markdown] tags=["zh"]
# **04-3。** n = 512 时，k 到多大，Linformer 的 FLOPs 就与全注意力一样多？
#
# <details><summary>提示</summary>
#
# 令 4 n² C 等于 8 n k C。
#
# </details>

# %% tags=["exercise", "ex-04-3"]
answer_3 = ...  # a number

# %%
check("04-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-04-3"]
# <details><summary>Solution</summary>
#
# ```python
# answer_3 = 512 // 2
# ```
#
# The paper's table still shows a speed-up of 1.3x at n = 512, k = 256: the softmax over k scores
# and the memory traffic are halved, and the FLOPs of matrix products do not count them.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-04-3"]
# <details><summary>答案</summary>
#
# ```python
# answer_3 = 512 // 2
# ```
#
# 论文的表格在 n = 512、k = 256 时仍有 1.3 倍加速：对 k 个分数做的 softmax
# 和访存都减半了，而矩阵乘法的 FLOPs 不计这些。
#
# </details>

# %% [markdown] tags=["en"]
# **04-4 (open: make it causal).** Linformer's summaries mix all tokens, so it cannot generate
# text. Write `causal(q, key, value)` (as `answer_4`) for inputs of shape (B, H, T, D), with T a
# multiple of 64. Each token must see itself and *all* tokens before it, individually or within a
# summary, and none after it. At 4,096 tokens it may take at most half of full causal attention's
# time. How you make the summaries is up to you.
#
# <details><summary>Hint</summary>Cut the text into stretches of 64 tokens. A token can see the
# means of the stretches wholly before it, and the tokens of its own stretch one by one: two sets of
# scores, one softmax.</details>

# %% [markdown] tags=["zh"]
# **04-4（开放题：做成因果的）。** Linformer 的摘要混合了全部 token，所以不能用来生成文本。写出 `causal(q, key, value)`
# （赋给 `answer_4`），形状都是 (B, H, T, D)，T 是 64 的倍数：每个 token 看得到自己和*所有*在它之前的 token（单独看，或在某个摘要里），
# 看不到之后的；4,096 个 token 时，用时至多是因果全注意力的一半。摘要怎么做由你决定。
#
# <details><summary>提示</summary>把文本切成每段 64 个。一个 token 能看到完全在它之前的各段的平均，以及自己这一段的每个 token：
# 两组分数，一个 softmax。</details>

# %% tags=["exercise", "ex-04-4"]
answer_4 = ...  # def causal(q, key, value): ...

# %% tags=["nbval-ignore-output"]
check("04-4", answer_4)

# %% [markdown] tags=["en", "solution", "ex-04-4"]
# <details><summary>Solution</summary>
#
# ```python
# def causal(q, key, value, size=64):
#     T, D = q.shape[2:]
#     q, key, value = (x.unflatten(2, (T // size, size)) for x in (q, key, value))
#     own = q @ key.mT * D**-0.5  # (B, H, stretch, size, size)
#     own = own.masked_fill(torch.ones(size, size, dtype=torch.bool).triu(1), -math.inf)
#     past = q @ key.mean(3)[:, :, None].mT * D**-0.5  # (B, H, stretch, size, summary)
#     stretch = torch.arange(T // size)
#     past = past.masked_fill((stretch >= stretch[:, None])[:, None], -math.inf)
#     weights = torch.cat([past, own], -1).softmax(-1)
#     means = value.mean(3)[:, :, None]
#     y = weights[..., :-size] @ means + weights[..., -size:] @ value
#     return y.flatten(2, 3)
#
#
# answer_4 = causal
# ```
#
# With stretches of a fixed length, the number of summaries grows with T: still T² / 64 scores. With
# a fixed number of summaries, the stretches grow instead. Setting both the stretch length and the
# number of summaries to the square root of T is the best compromise: T^1.5 scores in all.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-04-4"]
# <details><summary>答案</summary>
#
# ```python
# def causal(q, key, value, size=64):
#     T, D = q.shape[2:]
#     q, key, value = (x.unflatten(2, (T // size, size)) for x in (q, key, value))
#     own = q @ key.mT * D**-0.5  # (B, H, 段, 段内, 段内)
#     own = own.masked_fill(torch.ones(size, size, dtype=torch.bool).triu(1), -math.inf)
#     past = q @ key.mean(3)[:, :, None].mT * D**-0.5  # (B, H, 段, 段内, 摘要)
#     stretch = torch.arange(T // size)
#     past = past.masked_fill((stretch >= stretch[:, None])[:, None], -math.inf)
#     weights = torch.cat([past, own], -1).softmax(-1)
#     means = value.mean(3)[:, :, None]
#     y = weights[..., :-size] @ means + weights[..., -size:] @ value
#     return y.flatten(2, 3)
#
#
# answer_4 = causal
# ```
#
# 段长固定，摘要数就随 T 增加：分数仍有 T² / 64 个。摘要数固定，段长就增加。段长与摘要数都取 T 的平方根，是两者之间最好的折中，总共 T^1.5。
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - Linformer shortens the **length** of keys and values to k. Shrinking their width would leave n²
#   scores.
# - Most heads of real attention are low-rank, but some, mostly in the first three layers, are far
#   from it; and "low-rank" means that each text has a few directions of its own. One fixed
#   projection needs a network trained with it.
# - In our 700 steps, where E and F start mattered more than k, and more quality was kept where a
#   position means the same in every input.
# - Linformer saves time at lengths well beyond 2 k. It became famous for saving memory, but a fused
#   kernel saves that too, exactly and without retraining.
# - As published it cannot be causal, and its longest input is fixed.
#
# **References.** Wang et al. 2020, *Linformer: Self-Attention with Linear Complexity* (equation 7,
# Table 3); Eckart and Young 1936; Dao et al. 2022, *FlashAttention*.
#
# **Next:** [05 · Dynamic attention](05_dynamic_attention.ipynb) lets the range or the weights of
# attention depend on the input.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - Linformer 把键和值的**长度**缩短到 k。若缩小的是宽度，分数仍有 n² 个。
# - 真实的注意力中，多数头低秩，但有些头远非如此，多在前三层；而且“低秩”是指每个文本各有自己的少数方向。
#   要用一个固定投影，网络必须带着它训练。在我们的 700 步里，E 和 F 的起点比 k 更要紧；而在同一位置含义总是相同的数据上，质量保住得更多。
# - 长度远超 2 k 时它省时间。它当年以省内存闻名，这一点融合内核也能做到，而且结果精确、无需重训。
# - 按论文的做法，它做不了因果注意力；最长输入也是固定的。
#
# **参考文献。** Wang 等，2020，*Linformer: Self-Attention with Linear Complexity*（式 7、表 3）；
# Eckart 与 Young，1936；Dao 等，2022，*FlashAttention*。
#
# **下一篇：** [05 · 动态注意力](05_dynamic_attention.ipynb) 让注意力的范围或权重随输入而变。
