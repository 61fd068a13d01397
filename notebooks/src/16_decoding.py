# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 16 · Decoding: one token at a time
#
# The article speaks of training and of whole texts. Whoever runs a language model pays for
# *decoding*: each new token reads all weights in use and the keys and values of what was said so far.
# That is where weights in INT8 and INT4 pay, and what today's models have changed their attention for.
# You write the cache yourself, before you see ours; then grouped heads, then the rule by which a
# small model may guess for a large one.
#
# | | |
# |---|---|
# | **Claims** | none of the article's: it does not speak of decoding |
# | **Time** | 50 minutes; the cells run in about a minute |
# | **Afterwards you can** | write a key/value cache, predict tokens a second from bytes, say what grouped, latent and windowed attention save, tell where INT4 pays and where it does not, and accept a draft's tokens without changing what comes out |

# %% [markdown] tags=["zh"]
# # 16 · 解码：一次一个 token
#
# 文章讲的是训练和整段文本。真正运行语言模型的人，成本主要花在*解码*上：每生成一个 token，都要读一遍用到的全部权重
# 和此前所有 token 的键值。仅权重量化的 INT8、INT4 正是在这里划算，今天的模型也正是为此改了注意力。
# 先由你自己写出缓存，再看我们的写法；接着是分组的头，最后是投机解码的接受规则。
#
# | | |
# |---|---|
# | **论断** | 无：文章没有谈到解码 |
# | **用时** | 50 分钟；全部单元格运行约一分钟 |
# | **学完之后** | 能写出键值缓存；能由字节数预测每秒多少个 token；能说出分组、潜在向量与窗口注意力各省下什么；知道 INT4 何时划算、何时不划算；能采纳草稿模型的 token 而不改变输出的分布 |

# %% tags=["parameters"]
language = "en"
model = "qwen3-8b"  # a preset's name or the path of a config.json
n_tokens = 48  # of the text that is decoded token by token, 8 to 256
n_windows = 16  # held-out windows of 512 tokens that judge quality, 2 to 64

# %%
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from efflab import bench, cost, inference, lab, points
from efflab.compression import affine
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.estimate import bootstrap
from efflab.lab import check, explore, predict, show, show_source, table
from efflab_rooms import texts
from efflab_rooms.decoding import exercises, figures, measure

lab.use_language(language)
lab.use_notebook("16_decoding", exercises.EXERCISES, texts("decoding"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# Qwen3-8B has 8.2 billion parameters, in bf16 16.4 GB. One token reads 15.1 GB of them (of the input
# table only a row), and with 4,096 tokens before it another 0.6 GB of cache. An H100 reads 3,350 GB a second. One text, one token after
# another: how many a second at most? Then two about this computer.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# Qwen3-8B 有 82 亿参数，bf16 共 16.4 GB。每个 token 读其中 15.1 GB（输入词表只读一行），前面若有 4,096 个 token，
# 还要读 0.6 GB 缓存。
# 一块 H100 每秒读 3,350 GB。只处理一段文本，一个 token 接一个 token：每秒最多多少个？另外两题关于这台计算机。

# %%
p_speed = predict(
    "How many tokens a second does Qwen3-8B give at most, one text on an H100?", "tokens"
)

# %%
p_cache = predict(
    "After 512 tokens, how many times faster is the next one with a cache, here?", "x"
)

# %%
p_int4 = predict(
    "INT4 weights have 0.13 of fp32's bytes. Their time, of fp32's in the same engine?", "x"
)

# %% [markdown] tags=["en"]
# ## 2 · Build: the cache
#
# A causal model reads a text from left to right, and what a token's layers computed never changes when
# more tokens follow. So a new token need not compute the text again. It only has to *see* it, and
# attention sees keys and values. `stdlib-gpt` (6 layers, 192 channels), one token at a time:

# %% [markdown] tags=["zh"]
# ## 2 · 实现：缓存
#
# 因果模型从左向右读文本；后面再来多少 token，前面各 token 在各层算出的结果都不会变。所以新 token 不必把文本重算一遍，
# 只需要*看得见*它，而注意力看的是键和值。`stdlib-gpt`（6 层、192 个通道），一次一个 token：

# %%
stdlib_gpt, h100 = points.language_model(), DEVICES["H100 SXM"]
show_source(measure.decode, measure.step, measure.run_layer)

# %% [markdown] tags=["en"]
# What is missing is `attend(q, k, v, cache)`: the attention of the newest token. Without a memory it can
# only attend to itself, and from the second token on the logits are wrong:

# %% [markdown] tags=["zh"]
# 缺的正是 `attend(q, k, v, cache)`，即最新 token 的注意力。没有记忆，它只能看自己，于是从第二个 token 起 logits 就错了：

# %%
text = measure.prompt_ids(n_tokens)
forgetful = measure.differences(text, measure.attend_alone)
show(figures.first_difference({"sees itself alone": forgetful}))

# %% [markdown] tags=["en"]
# **16-1.** Write `attend(q, k, v, cache)`. q, k and v (B,H,1,D) are the newest token's; `cache` is a
# dict, empty at the first token, yours to fill, and the same one at this layer's next token. Return
# what attention gives, (B,H,1,D): softmax(q kᵀ / √D) v over all tokens so far.
#
# <details><summary>Hint</summary>Put k and v behind those in the cache along dimension 2, keep them
# there, and attend to all of them. No mask is needed: nothing in the cache is later.</details>

# %% [markdown] tags=["zh"]
# **16-1.** 写出 `attend(q, k, v, cache)`。q、k、v 形状为 (B,H,1,D)，属于最新的 token；`cache` 是一个字典，
# 第一个 token 时为空，由你填写，同一层的下一个 token 拿到的还是它。
# 返回注意力的结果 (B,H,1,D)：对至今所有 token 求 softmax(q kᵀ / √D) v。
#
# <details><summary>提示</summary>沿第 2 维把 k、v 接在缓存里已有的后面，存回去，再对全部键值做注意力。
# 不需要掩码：缓存里没有更晚的 token。</details>

# %% tags=["exercise", "ex-16-1"]
answer_1 = ...  # def answer_1(q, k, v, cache): return output

# %%
check("16-1", answer_1)

# %% [markdown] tags=["solution", "ex-16-1"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_1(q, k, v, cache):
#     if cache:
#         k, v = torch.cat([cache["k"], k], 2), torch.cat([cache["v"], v], 2)
#     cache["k"], cache["v"] = k, v
#     return ((q @ k.mT) * q.shape[-1] ** -0.5).softmax(-1) @ v
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Ours, beside the forgetful one (and yours, once it is there). What is left is rounding: fp32 adds
# in another order.

# %% [markdown] tags=["zh"]
# 我们的写法，与没有记忆的对照（写好之后，你的也在图上）。剩下的差别是舍入：fp32 相加的顺序不同。


# %%
def attend_cached(q, k, v, cache):
    for name, new in (("k", k), ("v", v)):
        cache[name] = torch.cat([cache[name], new], 2) if name in cache else new
    return scaled_dot_product_attention(q, cache["k"], cache["v"])


ways = {"sees itself alone": forgetful, "ours": measure.differences(text, attend_cached)}
if answer_1 is not ...:
    ways["yours"] = measure.differences(text, answer_1)
show(figures.first_difference(ways))
assert ways["ours"].max() < figures.NOISE

# %% [markdown] tags=["en"]
# The whole text again for each token, or one token with a cache? The first grows with the text, the
# second hardly:

# %% [markdown] tags=["zh"]
# 每个 token 都把全文重算一遍，还是只算一个 token 加缓存？前者随文本增长，后者几乎不变：

# %% tags=["nbval-ignore-output"]
times = measure.time_tokens(attend_cached, (32, 64, 128, 256, 512))
show(figures.token_times(times))
p_cache.reveal(times[512]["whole text"].ratio(times[512]["cached"]))
assert times[512]["whole text"].ratio(times[512]["cached"]) > 4

# %% [markdown] tags=["en"]
# The whole text has some 500 times the FLOPs of one token, but one token is not 500 times faster: it
# still reads every weight, and starts every operator.
#
# ## 3 · Derive: the bytes of a token
#
# By hand, for `stdlib-gpt` in fp32. A token leaves a key and a value of 192 numbers in each of 6
# layers: 2 · 6 · 192 = 2,304 numbers, 9,216 bytes. The model has 3,161,088 parameters, 12.6 MB, and
# the next token reads all but the table of 512 positions: 12.3 MB. So the cache overtakes what is read
# of the weights at 12,251,136 / 9,216 = 1,329 tokens; its longest text has 512. For today's models, 2
# bytes a number (Pope et al. 2022 count the same way):

# %% [markdown] tags=["zh"]
# 全文的运算量约为一个 token 的 500 倍，加速比却远不到 500：一个 token 仍要读全部权重、启动每个算子。
#
# ## 3 · 推导：一个 token 的字节数
#
# 手算 fp32 的 `stdlib-gpt`。一个 token 在 6 层里各留下 192 个数的键和值：2 · 6 · 192 = 2,304 个数，9,216 字节。
# 模型有 3,161,088 个参数，12.6 MB，下一个 token 除 512 行的位置表外全部读一遍：12.3 MB。所以缓存在
# 12,251,136 / 9,216 = 1,329 个 token 处超过所读的权重，而它的文本最长 512。换成今天的模型，每个数 2 字节
# （Pope 等 2022 也这样数）：

# %%
assert cost.kv_cache_bytes(stdlib_gpt.config, 1, value_bytes=4) == 2 * 6 * 192 * 4
rows = []
for name in dict.fromkeys((model, "qwen3-8b", "llama-3.1-70b", "gpt-oss-20b", "deepseek-v3")):
    config = measure.find_config(name)
    weights, token = inference.decode_bytes(config, 0), cost.kv_cache_bytes(config, 1)
    row = {
        "model": name,
        "weights read for a token (GB)": weights / 1e9,
        "cache of a token (bytes)": token,
        "weights / cache of a token": weights / token,
        "longest text": config.max_len,
    }
    rows.append(row)
table(rows, kind="computed")
p_speed.reveal(1 / measure.serve(PRESETS["qwen3-8b"], h100, 4096, 1, "bf16").seconds)

# %% [markdown] tags=["en"]
# "Weights / cache of a token" is the number of tokens at which both are equal, where every layer sees
# all of the text. For one text it lies beyond the longest text of each of the four models of today. But
# a server holds many texts at once: they share the weights, but of the caches only a common beginning
# (Kwon et al. 2023). (Half of gpt-oss-20b's layers see 128 tokens, so that a long text has less cache
# than this column says; of deepseek-v3's experts 8 of 256 and a shared one are read for a token.)
#
# Why so slow? A prompt of 512 tokens (*prefill*) multiplies each weight that it reads 512 times, one new token (*decode*)
# once. FLOPs over bytes, and an H100 has work for its arithmetic from 295 FLOPs a byte on:

# %% [markdown] tags=["zh"]
# “权重 / 一个 token 的缓存”就是两者相等时的 token 数（前提是每一层都看全文）。只有一段文本时，
# 今天这四个模型的这个数都超过各自的最长文本。但服务器同时处理许多文本：权重共用，缓存只能共用相同的开头（Kwon 等 2023）。
# （gpt-oss-20b 有一半的层只看 128 个 token，长文本的缓存比这一列推算的少；deepseek-v3 每个 token 只读 256 个路由专家中的 8 个，外加 1 个共享专家。）
#
# 为什么这么慢？512 个 token 的提示词（*预填充*）把读进来的每个权重用 512 次，一个新 token（*解码*）只用一次。看 FLOPs 与字节之比；
# H100 要到每字节 295 次运算，算术单元才不闲着：

# %%
config, rows = measure.find_config(model), []
work = {
    "a prompt of 512": (inference.prefill_flops, inference.prefill_bytes, 1),
    "one token after 512": (inference.decode_flops, inference.decode_bytes, 1),
    "one token each of 64 texts": (inference.decode_flops, inference.decode_bytes, 64),
}
for what, (count_flops, count_bytes, n_texts) in work.items():
    flops, n_bytes = count_flops(config, 512, n_texts), count_bytes(config, 512, n_texts)
    least = cost.roofline_seconds(flops, n_bytes, h100, "bf16")
    row = {"step": what, "FLOPs (10¹²)": flops / 1e12, "read (GB)": n_bytes / 1e9}
    rows.append(row | {"FLOP / byte": flops / n_bytes, "H100, least (ms)": 1e3 * least})
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# ## 4 · Build: fewer keys and values
#
# A layer's query heads can share key and value heads in groups (*grouped-query attention*, Ainslie et
# al. 2023): Llama 3.1 70B has 64 query heads and 8 of keys and values, an eighth of the cache. One key
# and one value head for all is *multi-query attention* (Shazeer 2019).
#
# **16-2.** Write `grouped(q, k, v)`: q (B,H,1,D), k and v (B,G,S,D), G divides H, and consecutive H/G
# query heads share a key and a value head. Return (B,H,1,D).
#
# <details><summary>Hint</summary>Either repeat each key head H/G times (`repeat_interleave`), or, without
# copying a key, view q as (B,G,H/G,D): a group's queries are rows of one product.</details>

# %% [markdown] tags=["zh"]
# ## 4 · 实现：更少的键和值
#
# 一层的查询头可以分组共用键值头（*分组查询注意力*，Ainslie 等 2023）：
# Llama 3.1 70B 有 64 个查询头、8 个键值头，缓存只有八分之一。全部查询头共用一个键值头，即*多查询注意力*（Shazeer 2019）。
#
# **16-2.** 写出 `grouped(q, k, v)`：q 为 (B,H,1,D)，k、v 为 (B,G,S,D)，G 整除 H，相邻的 H/G 个查询头共用一个键值头。
# 返回 (B,H,1,D)。
#
# <details><summary>提示</summary>可以把每个键值头重复 H/G 次（`repeat_interleave`）；也可以不复制键，
# 把 q 看作 (B,G,H/G,D)：同组的查询就是同一次乘积里的各行。</details>

# %% tags=["exercise", "ex-16-2"]
answer_2 = ...  # def answer_2(q, k, v): return output

# %%
check("16-2", answer_2)

# %% [markdown] tags=["solution", "ex-16-2"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_2(q, k, v):
#     B, H, T, D = q.shape
#     q = q.reshape(B, k.shape[1], -1, D)
#     return ((q @ k.mT * D**-0.5).softmax(-1) @ v).reshape(B, H, T, D)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Ours in a cell, and torch's own (`enable_gqa=True`) beside it:

# %% [markdown] tags=["zh"]
# 我们的写法就在单元格里，旁边是 torch 自带的（`enable_gqa=True`）：


# %%
def attend_grouped(q, k, v):
    B, H, T, D = q.shape
    q = q.reshape(B, k.shape[1], -1, D)  # a group's queries are rows of one product
    weights = (q @ k.mT * D**-0.5).softmax(-1)
    return (weights @ v).reshape(B, H, T, D)


q, (k, v) = torch.randn(1, 16, 1, 64), torch.randn(2, 1, 4, 300, 64)
theirs = scaled_dot_product_attention(q, k, v, enable_gqa=True)
print((attend_grouped(q, k, v) - theirs).abs().max().item() < 1e-5)

# %% [markdown] tags=["en"]
# The same 70B model with five kinds of attention. *Multi-head latent attention* (MLA, DeepSeek-AI 2024)
# caches 512 numbers, from which all heads' keys and values are made, and one rotary key of 64 that they
# share; a window keeps the last 4,096 tokens alone.

# %% [markdown] tags=["zh"]
# 同一个 70B 模型，五种注意力。*多头潜在注意力*（MLA，DeepSeek-AI 2024）缓存 512 个数，所有头的键和值由它生成；
# 另有各头共用的 64 维旋转位置键。窗口注意力只保留最近 4,096 个 token。

# %%
llama = PRESETS["llama-3.1-70b"]
kinds = {"multi-head": dict(n_kv_head=None), "grouped, 8": dict(n_kv_head=8)}
kinds |= {"multi-query": dict(n_kv_head=1), "window of 4,096": dict(n_kv_head=8, windows=(4096,))}
kinds |= {"latent": dict(n_kv_head=None, latent=PRESETS["deepseek-v3"].attention.latent)}
rows = []
for name, fields in kinds.items():
    config = replace(llama, attention=replace(llama.attention, **fields))
    row = {"attention": name, "a token (bytes)": cost.kv_cache_bytes(config, 1)}
    for n in (4096, 131072):
        n_bytes = inference.decode_bytes(config, n, 16)
        row[f"cache of {n:,} tokens (GB)"] = cost.kv_cache_bytes(config, n) / 1e9
    row["16 texts of 131,072: cache / all that is read"] = (
        cost.kv_cache_bytes(config, n, 16) / n_bytes
    )
    rows.append(row)
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# Bytes are half of it: each kind has to be trained so (Ainslie et al. go on for 5% of the training).
# Multi-query attention loses quality, grouped heads little; the authors of latent attention report no
# loss against multi-head; a window forgets.
#
# Does time follow those bytes? One token's attention over its cache, 16 query heads of 64 channels in
# fp32, with 16, 4 and 1 heads of keys and values:

# %% [markdown] tags=["zh"]
# 字节只是一半：每种都要专门训练（Ainslie 等用原训练量的 5% 续训）。多查询会损失质量，分组损失很小；
# 潜在注意力的作者报告不低于多头；窗口则会遗忘更早的内容。
#
# 时间跟着字节走吗？一个 token 对其缓存做注意力，fp32，16 个查询头，每头 64 个通道，键值头分别为 16、4、1 个：

# %% tags=["nbval-ignore-output"]
times = measure.time_attention(attend_grouped, (1024, 4096, 16384, 32768), (16, 4, 1))
show(figures.attention_times(times))
assert times[32768][4].ratio(times[32768][16]) < 0.8

# %% [markdown] tags=["en"]
# In direction, not in proportion: 4 heads have a quarter of the bytes and take more than a quarter of
# the time. Where a line bends, the keys and values likely no longer fit into the CPU's own caches.
#
# ## 5 · Where INT8 and INT4 pay
#
# One token reads each weight and multiplies it once, so that fewer bits should be less time, whatever
# the arithmetic is done in. Here 100 million random weights (12 pairs of linear layers, 1,024 to 4,096
# and back), one token, in torch and in OpenVINO; INT8 has a scale a row, INT4 one for 128 weights
# (`nncf.compress_weights`). The inputs stay fp32.

# %% [markdown] tags=["zh"]
# 方向一致，但不成比例：4 个键值头的字节是四分之一，用时却不止四分之一。曲线转折处，多半是键值放不进 CPU 高速缓存的地方。
#
# ## 5 · INT8 和 INT4 在哪里划算
#
# 一个 token 把每个权重读一遍、只乘一次，所以不管用什么算术，位宽越低就该越快。下面是一亿个随机权重
# （12 对线性层，1,024 到 4,096 再回来），一个 token，分别用 torch 和 OpenVINO 运行；INT8 每行一个缩放因子，
# INT4 每 128 个权重一个（`nncf.compress_weights`）。输入保持 fp32。

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
engines = measure.engines(measure.Stack().eval(), torch.randn(1, measure.WIDTH))
times = measure.time_steps(engines)[1]
show(figures.formats(times))

# %% tags=["nbval-ignore-output"]
n_weights, rows = 8 * measure.WIDTH**2 * measure.N_BLOCKS, []
bandwidth = bench.calibrate(seconds=1).memory_bandwidth
for name, timing in times.items():
    n_bytes = n_weights * measure.FORMAT_BITS[name] / 8
    row = {"format": name, "bytes (MB, computed)": n_bytes / 1e6}
    row |= {"least (ms), by this machine's copying": 1e3 * n_bytes / bandwidth}
    row |= {
        "measured (ms)": 1e3 * timing.median,
        "measured / least": timing.median * bandwidth / n_bytes,
    }
    rows.append(row | {"tokens a second": 1 / timing.median})
table(rows, kind="measured")
p_int4.reveal(times["INT4"].ratio(times["OpenVINO fp32"]))
assert times["INT8"].ratio(times["OpenVINO fp32"]) < 0.8

# %% [markdown] tags=["en"]
# "Least" is bytes over the bandwidth that a large copy reaches here. Two engines take different times
# for the same fp32 weights: a row far above its least time is not bound by bytes, but by its kernel or by
# unpacking; one below it finds weights in the CPU's caches. So compare formats within one engine. bf16 in
# torch has half the bytes, and what it gives depends on the CPU: without instructions for it, it may take
# many times fp32's time.
#
# The price is quality. The same widths, on our symmetric grids, in every linear layer of `stdlib-gpt`, bits per byte of
# held-out source:

# %% [markdown] tags=["zh"]
# “至少”是字节数除以这台机器大块复制所达到的带宽。同样的 fp32 权重，两个引擎的用时不同：远高于下限的那一行，
# 瓶颈不在字节，而在内核实现或解包；低于下限的，权重有一部分就在 CPU 高速缓存里。所以只在同一引擎内比较各格式。
# torch 的 bf16 只有一半字节，效果取决于 CPU：没有相应指令时，用时可能是 fp32 的许多倍。
#
# 代价是质量。把同样的位宽（我们的对称网格）用于 `stdlib-gpt` 的每个线性层，看留出源码上的每字节比特数：

# %%
rows = [{"weights": "fp32", "bits per byte": points.language_quality(stdlib_gpt)}]
for name, bits, scales in (("INT8", 8, dict(axis=0)), ("INT4", 4, dict(group_size=128))):
    changed = deepcopy(stdlib_gpt)
    for layer in (module for module in changed.modules() if isinstance(module, nn.Linear)):
        layer.weight.data = affine.quantize(layer.weight.data, bits, **scales).dequantize()
    rows.append({"weights": name, "bits per byte": points.language_quality(changed, n_windows)})
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# ## 6 · A smaller cache: windows, sinks, fewer bits
#
# What if the cache keeps the last tokens alone? `stdlib-gpt` was not trained for that. A window of 64
# costs it much, and the first four tokens of the text bring a fifth to a quarter of that back, four more
# recent ones next to nothing: softmax weights sum to 1, and what a head has no use for goes to the first
# tokens (*attention sinks*, Xiao et al. 2024, whose large models recover almost wholly with four). You met
# them in [03](03_sparse_attention.ipynb). The mask stands in the cell:

# %% [markdown] tags=["zh"]
# ## 6 · 更小的缓存：窗口、汇聚点、更少的比特
#
# 缓存若只留最近的 token 呢？`stdlib-gpt` 没有为此训练过。宽 64 的窗口让它损失很多，而文本开头的几个 token
# （四个）能找回其中五分之一到四分之一，多留四个最近的则几乎没有用：softmax 的权重之和必为 1，注意力头用不上的部分
# 就落在开头的 token 上（*注意力汇聚点*，Xiao 等 2024；他们的大模型保留四个便几乎完全恢复）。
# [03](03_sparse_attention.ipynb) 里已经见过。掩码就在单元格里：


# %%
def attend_window(window, n_sinks):
    place = torch.arange(512)
    back = place[:, None] - place
    visible = (back >= 0) & ((back <= window) | (place < n_sinks))

    def attend(q, k, v):
        T = q.shape[2]
        return scaled_dot_product_attention(q, k, v, attn_mask=visible[:T, :T])

    return measure.Changed(attend)


# %%
rows = []
for window, n_sinks in ((511, 0), (64, 0), (64, 1), (64, 4), (68, 0)):
    quality = points.language_quality(attend_window(window, n_sinks), n_windows)
    row = {
        "window": window,
        "first tokens kept": n_sinks,
        "tokens in the cache": window + 1 + n_sinks,
    }
    rows.append(row | {"bits per byte": quality})
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# (The last row has as many tokens as the one before it, all of them recent.) Fewer bits are kinder. A key's
# channels differ in size, the same ones in every token, so that keys want a scale for each *channel*;
# values have no such outliers (KIVI, Liu et al. 2024). A scale for 32 numbers, with a zero point. (A
# channel's scale needs 32 tokens; KIVI leaves the newest in 16 bits until there are so many. We round all of
# them, and count no such rest.)

# %% [markdown] tags=["zh"]
# （最后一行与前一行的 token 数相同，但全是最近的。）减少比特要温和得多。键的各通道大小不一，而且每个 token 都是同样的通道大，
# 所以键适合*逐通道*缩放；值没有这样的离群通道（KIVI，Liu 等 2024）。每 32 个数一个缩放因子，带零点。
# （逐通道的缩放因子要凑满 32 个 token；KIVI 在凑满之前让最新的 token 保持 16 比特。这里全部舍入，也未计这部分。）


# %%
def round_groups(x, bits):
    rows = x.reshape(-1, x.shape[-1])
    q = affine.quantize(rows, bits, symmetric=False, group_size=32)
    return q.dequantize().view(x.shape)


rows = []
for bits in (4, 2):
    for by in ("channel", "token"):

        def attend(q, k, v, bits=bits, by=by):
            k = round_groups(k.mT, bits).mT if by == "channel" else round_groups(k, bits)
            return scaled_dot_product_attention(q, k, round_groups(v, bits), is_causal=True)

        quality = points.language_quality(measure.Changed(attend), n_windows)
        rows.append({"bits": bits, "a key's scale by": by, "bits per byte": quality})
table(rows, kind="measured")
by_bits = [row["bits per byte"].mean for row in rows]
assert by_bits[0] < by_bits[1] < by_bits[3]

# %% [markdown] tags=["en"]
# ## 7 · Build: let a small model guess
#
# If one token reads all weights and does next to no arithmetic, five tokens at once cost hardly more. So a
# small *draft* model writes n tokens, the large one reads them in one pass and accepts each with a certain
# chance (*speculative decoding*, Leviathan et al. 2023). At the first refusal it draws another token in that
# place and drops the rest; if none is refused, it draws one more. So a pass yields 1 to n + 1 tokens, and
# their distribution has to be exactly the large model's.
#
# **16-3.** p and q (V,) are the large model's and the draft's probabilities at one place, `token` is
# what the draft drew from q. Write `accept(p, q, token)`: the chance that the token is accepted, as high as
# can be, and the distribution (V,) from which another is drawn if it is not; both for every token, also
# where it is always accepted. For p = (0.5, 0.3, 0.2) and q = (0.2, 0.3, 0.5) the chances are 1, 1 and
# 0.4, and the other token is always the first: it comes with 0.2 · 1 + 0.5 · 0.6 = 0.5.
#
# <details><summary>Hint</summary>A token that the draft draws too often (q > p) may only come through
# with chance p / q. What is then missing of p, tokens with p > q, is made good by the second draw:
# p − q where that is positive, divided by its sum.</details>

# %% [markdown] tags=["zh"]
# ## 7 · 实现：让小模型来猜
#
# 既然一个 token 要读全部权重而几乎不做算术，一次算五个 token 也贵不了多少。于是让小的*草稿*模型写出 n 个 token，
# 大模型一次前向读完，逐个以一定概率接受（*投机解码*，Leviathan 等 2023）。遇到第一个被拒绝的 token，就由大模型在该位置另采样一个，
# 后面的草稿全部丢弃；若全部接受，则再多采样一个。所以每次前向得到 1 到 n + 1 个 token，而其分布必须与大模型的分毫不差。
#
# **16-3.** p、q 形状为 (V,)，是大模型与草稿模型在同一位置的概率；`token` 是草稿从 q 中采样的。写出 `accept(p, q, token)`：
# 返回接受该 token 的概率（尽可能高），以及不接受时改从哪个分布 (V,) 采样；每个 token 都要返回这两项，即使它必定被接受。
# 例如 p = (0.5, 0.3, 0.2)、q = (0.2, 0.3, 0.5)：接受概率为 1、1、0.4，改采样的必是第一个 token，
# 它出现的概率是 0.2 · 1 + 0.5 · 0.6 = 0.5。
#
# <details><summary>提示</summary>草稿采样过多的 token（q > p）只能以 p / q 的概率通过。p 中缺少的部分，即 p > q 的 token，
# 由第二次采样补上：取 p − q 的正数部分，除以其总和。</details>

# %% tags=["exercise", "ex-16-3"]
answer_3 = ...  # def answer_3(p, q, token): return chance, instead

# %%
check("16-3", answer_3)

# %% [markdown] tags=["solution", "ex-16-3"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_3(p, q, token):
#     rest = (p - q).clamp_min(0)
#     instead = rest / rest.sum() if rest.sum() > 0 else p
#     return min(1.0, (p[token] / q[token]).item()), instead
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Ours, and the whole of speculative decoding around it: a pass of the target over a text that the draft
# has continued. (No cache here, so that the method is all there is to see.)

# %% [markdown] tags=["zh"]
# 我们的写法，以及围绕它的完整投机解码：草稿续写一段文本，目标模型一次前向读完。（这里不用缓存，只看方法本身。）


# %%
def accept(p, q, token):
    rest = (p - q).clamp_min(0)
    instead = rest / rest.sum() if rest.sum() > 0 else p
    return min(1.0, (p[token] / q[token]).item()), instead


def draw(probabilities, rng):
    return torch.multinomial(probabilities, 1, generator=rng)


# %%
@torch.no_grad()
def speculate(target, draft, ids, n_draft, rng):
    n, q = ids.shape[1], []
    for _ in range(n_draft):
        q.append(draft(ids)[0, -1].softmax(-1))
        ids = torch.cat([ids, draw(q[-1], rng)[None]], 1)
    p = target(ids)[0, n - 1 :].softmax(-1)
    for i, token in enumerate(ids[0, n:]):
        chance, instead = accept(p[i], q[i], token)
        if torch.rand(1, generator=rng) >= chance:
            return torch.cat([ids[:, : n + i], draw(instead, rng)[None]], 1)
    return torch.cat([ids, draw(p[-1], rng)[None]], 1)


# %% [markdown] tags=["en"]
# A token comes out either because it was drawn and accepted, with min(p, q), or because another was refused,
# and that adds what is missing to p. So a share of Σ min(p, q) of the draft's tokens is accepted; call its
# mean α. With n tokens drafted a pass yields (1 − αⁿ⁺¹) / (1 − α) on average if all places are alike
# (equation 1 of Leviathan et al.). A draft of the same weights in 4 bits, formula and measurement:

# %% [markdown] tags=["zh"]
# 输出为某个 token，要么是采样到并被接受，概率 min(p, q)；要么是别的 token 被拒绝，而这恰好补上 p 所缺的部分。
# 所以草稿的 token 被接受的比例是 Σ min(p, q)，其平均记作 α。每次起草 n 个，若各处相同，一次前向平均得到 (1 − αⁿ⁺¹) / (1 − α) 个
# （Leviathan 等的式 1）。用同样权重的 4 比特版本当草稿，公式与实测：


# %%
def quantize_layers(bits):
    changed = deepcopy(stdlib_gpt)
    for layer in (module for module in changed.modules() if isinstance(module, nn.Linear)):
        layer.weight.data = affine.quantize(layer.weight.data, bits, group_size=32).dequantize()
    return changed


def first_layers(n_layer, ids):
    x = stdlib_gpt.embedding(ids)
    for layer in stdlib_gpt.layers[:n_layer]:
        x = layer(x)
    return stdlib_gpt.embedding.logits(stdlib_gpt.final_norm(x))


# %% tags=["nbval-ignore-output"]
draft, rng, lengths = quantize_layers(4), torch.Generator().manual_seed(0), []
for start in measure.prompt_ids(192, n_texts=48).split(1):
    longer = speculate(stdlib_gpt, draft, start, 4, rng)
    lengths.append(longer.shape[1] - start.shape[1])
formula = measure.tokens_per_pass(measure.acceptance(draft), 4)
passes = bootstrap(np.array(lengths, dtype=float))
row = {"draft": "its own weights in 4 bits", "tokens a pass, by formula": formula}
table([row | {"measured": passes, "ratio": passes.mean / formula}], kind="measured")
assert set(lengths) <= {1, 2, 3, 4, 5}
assert 0.7 < passes.mean / formula < 1.3

# %% [markdown] tags=["en"]
# Which draft? It has to be cheap and to agree. The table of the logits stays in fp32 and is read at every
# guess: it is half of what a small draft reads. If time were bytes, a step with n guesses would take 1 + n c
# of one without, c the draft's bytes over the model's, and yield that many tokens (theorem 3.8 has the
# inverse):

# %% [markdown] tags=["zh"]
# 用什么当草稿？既要便宜，又要与大模型的分布接近。输出词表仍是 fp32，每起草一个 token 都要读一遍：小草稿读取的字节里，
# 它占一半左右。若时间由字节决定，起草 n 个的一步用时是无草稿时的 1 + n c 倍（c 为草稿与大模型的字节之比），而得到这么多 token
# （定理 3.8 是其倒数）：

# %%
n_linear = sum(m.weight.numel() for m in stdlib_gpt.modules() if isinstance(m, nn.Linear))
n_table, n_draft, rows = stdlib_gpt.embedding.token.weight.numel(), 4, []
drafts = {f"its own weights in {b} bits": (quantize_layers(b), (b + 1) / 32) for b in (8, 4, 3)}
drafts |= {f"its first {n} layers": (partial(first_layers, n), n / 6) for n in (5, 3)}
for name, (draft, share) in drafts.items():
    share = (share * n_linear + n_table) / (n_linear + n_table)
    accepted = measure.acceptance(draft)
    n_out = measure.tokens_per_pass(accepted, n_draft)
    row = {"draft": name, "its bytes / the model's": share, "accepted, expected": accepted}
    row |= {"tokens a pass, by formula": n_out}
    rows.append(row | {"bytes a token / without a draft": (1 + n_draft * share) / n_out})
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# Under 1 in the last column a draft pays. The model's own weights in few bits guess well; its first layers
# alone do not, as nobody trained them to. Real drafts are small models trained on the same text, or heads on
# the large one.
#
# ## 8 · Many texts side by side
#
# The other way to give the weights more work: several texts in one step. Time for a step, and tokens a
# second of all texts, here:

# %% [markdown] tags=["zh"]
# 最后一列小于 1 就划算。模型自己的低比特权重起草得很准；只用前几层则不行，因为没有人为此训练过它们。
# 实际使用的草稿是用同样文本训练的小模型，或接在大模型上的额外输出头。
#
# ## 8 · 许多文本并排
#
# 让权重多干活的另一个办法：一步处理好几段文本。下面是这台机器上一步的时间，以及所有文本合计每秒的 token 数：

# %% tags=["nbval-ignore-output"]
some = {name: engines[name] for name in ("OpenVINO fp32", "INT8", "INT4")}
show(figures.batches(measure.time_steps(some, (1, 4, 16, 64))))

# %% [markdown] tags=["en"]
# A step of 16 texts takes longer than one of 1, but far less than 16 times: throughput rises, and so does
# everybody's wait. Caches are not shared like weights: 64 texts have 64. And with many texts the arithmetic
# counts again: the lead over fp32 shrinks, of INT4 as of INT8.
#
# ## 9 · Explore: what serves
#
# A model, a device, a format, a context, a batch: tokens a second at most, and what lies in memory. Where
# the line is dotted, weights and cache do not fit. Your own model: `efflab run 16 -p
# model=path/to/config.json`. How many texts of 4,096 tokens does an RTX 4090 hold beside Qwen3-8B in
# INT4, and how many in bf16? (The slider doubles; by hand it is memory less weights, over the cache of one.)
#
# <details><summary>Answer</summary>35 and 15, nothing else counted. INT4 is every weight here, 4.2 GB; with
# input and output tables in 16 bits, as released INT4 models often have them, it is 6.1 GB, and 32 texts.</details>

# %% [markdown] tags=["zh"]
# 一步 16 段文本比 1 段慢，但用时远不到 16 倍：吞吐上升，每个人等待的时间也变长。缓存不像权重那样共用：64 段文本就有 64 份。
# 文本一多，算术又重新重要起来：INT4 与 INT8 相对 fp32 的领先都会缩小。
#
# ## 9 · 探索：什么配置撑得住
#
# 选模型、设备、格式、上下文、批量：每秒最多多少个 token，内存里有什么。虚线处表示权重加缓存放不下。
# 换成你自己的模型：`efflab run 16 -p model=path/to/config.json`。一块 RTX 4090 上，Qwen3-8B 用 INT4 时能同时放下多少段 4,096 个 token 的文本？
# 用 bf16 呢？（滑块按倍数移动；手算是内存减去权重，再除以一段的缓存。）
#
# <details><summary>答案</summary>35 段与 15 段，不计其他占用。这里的 INT4 指全部权重，4.2 GB；若输入和输出词表保留 16 比特
# （公开的 INT4 模型常常如此），则是 6.1 GB，可放 32 段。</details>

# %%
explore(figures.serving_of(model))

# %% [markdown] tags=["en"]
# ## 10 · Where it breaks
#
# - **It is a bound.** Launching kernels, sampling, networks between cards come on top; a small model
#   such as `stdlib-gpt` spends most of a token's time between its operators.
# - **A cache is memory.** Its texts end at different times, and a server that reserves the longest for
#   each wastes most of it; hence pages (Kwon et al. 2023).
# - **INT4 costs quality**, in a small model much, and what one text gains by it many texts do not.
# - **Speculation is for few texts.** With many, the arithmetic is busy, and every refused token was drafted
#   and checked for nothing; a draft that disagrees is slower even with one.
#
# ## 11 · Verdict
#
# No claim of the article is judged here.

# %% [markdown] tags=["zh"]
# ## 10 · 何处失效
#
# - **这是上界。** 启动内核、采样、卡间通信都要另算；像 `stdlib-gpt` 这样的小模型，一个 token 的时间多半花在算子之间。
# - **缓存就是内存。** 各段文本结束的时间不同；若为每段都按最长预留，大部分会浪费，因此要分页（Kwon 等 2023）。
# - **INT4 有质量代价**，小模型尤其明显；一段文本得到的好处，许多文本一起时未必有。
# - **投机解码适合文本少的时候。** 文本一多，算力已被占满，被拒绝的 token 就白起草、白验证了；草稿若与大模型的分布相差太远，一段文本也会变慢。
#
# ## 11 · 结论
#
# 文章没有论断在这里判定。

# %% [markdown] tags=["en"]
# ## 12 · Exercises
#
# **16-4 (performance target).** Write `continue_text(ids, n_new)`: the likeliest continuation of ids (1,T)
# by `stdlib-gpt`, (1, T + n_new), the same tokens as `exercises.continue_plainly`, at least four times
# faster after 256 tokens.
#
# <details><summary>Hint</summary>The prompt once, all at a time: its keys and values are each layer's
# `heads(norm(x))`. Then `measure.step`, one token at a time, with your cache. (Feeding the prompt
# token by token is slower than one pass.)</details>

# %% [markdown] tags=["zh"]
# ## 12 · 练习
#
# **16-4（性能目标）。** 写出 `continue_text(ids, n_new)`：`stdlib-gpt` 对 ids (1,T) 的最可能续写 (1, T + n_new)，
# 与 `exercises.continue_plainly` 的 token 相同，在 256 个 token 之后加速比至少为 4。
#
# <details><summary>提示</summary>提示词部分一次前向算完：各层的键和值就是 `heads(norm(x))` 的结果。然后用 `measure.step`
# 配上你的缓存，一次一个 token。（逐个 token 喂入提示词，比一次前向慢。）</details>

# %% tags=["exercise", "ex-16-4"]
answer_4 = ...  # def answer_4(ids, n_new): return longer_ids

# %% tags=["nbval-ignore-output"]
check("16-4", answer_4)

# %% [markdown] tags=["solution", "ex-16-4"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_4(ids, n_new):
#     model, caches = points.language_model(), []
#     x = model.embedding(ids)
#     for layer in model.layers:
#         cache = {}
#         x = measure.run_layer(layer, x, lambda q, k, v: (
#             cache.update(k=k, v=v),
#             scaled_dot_product_attention(q, k, v, is_causal=True),
#         )[1])
#         caches.append(cache)
#     logits = model.embedding.logits(model.final_norm(x[:, -1]))
#     for _ in range(n_new):
#         ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
#         if ids.shape[1] < 512:
#             logits = measure.step(ids[:, -1], ids.shape[1] - 1, caches, attend_cached)
#     return ids
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **16-5 (open).** The smallest cache that loses at most 0.02 bits per byte:
# `answer_5 = dict(window=..., sinks=..., key_bits=..., value_bits=...)`. The window counts the tokens before the
# newest, up to 511; bits are 2 to 16 or None. At most 30% of the 16-bit cache of 512 tokens is asked;
# how far can you go? (A grid of 32 numbers takes 32 bits for its scale and zero point.)
#
# <details><summary>Hint</summary>Windows lose much and save in proportion; bits lose little down to 4.</details>

# %% [markdown] tags=["zh"]
# **16-5（开放题）。** 每字节损失不超过 0.02 比特的最小缓存：
# `answer_5 = dict(window=..., sinks=..., key_bits=..., value_bits=...)`。窗口为最新 token 之前的 token 数，最多 511；
# 比特数为 2 至 16，或 None。要求不超过 512 个 token 的 16 比特缓存的 30%；你能做到多小？
# （每 32 个数一组，缩放因子和零点共占 32 比特。）
#
# <details><summary>提示</summary>窗口损失大，省下的只与宽度成比例；降到 4 比特损失都很小。</details>

# %% tags=["exercise", "ex-16-5"]
answer_5 = ...  # dict(window=..., sinks=..., key_bits=..., value_bits=...)

# %%
check("16-5", answer_5)

# %% [markdown] tags=["solution", "ex-16-5"]
# <details><summary>Solution</summary>
#
# ```python
# answer_5 = dict(window=383, sinks=4, key_bits=4, value_bits=4)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# ## 13 · Recap
#
# - A token after a text reads all weights and the text's keys and values; the cache makes it one token's
#   work instead of the whole text's.
# - Tokens a second at most: bandwidth over bytes. Fewer bits, fewer keys and a window cut the bytes; more
#   texts and drafts give the bytes that are read more to do.
# - Time follows bytes until unpacking, arithmetic or overhead take over: measure, with your batch.
#
# **References.** Shazeer 2019, *Fast Transformer Decoding*. Pope et al. 2022, *Efficiently Scaling Transformer
# Inference*. Ainslie et al. 2023, *GQA*. Leviathan et al. 2023, *Fast Inference from Transformers via
# Speculative Decoding*. Kwon et al. 2023, *Efficient Memory Management for Large Language Model
# Serving with PagedAttention*. Xiao et al. 2024, *Efficient Streaming Language
# Models with Attention Sinks*. Liu et al. 2024, *KIVI*. DeepSeek-AI 2024, *DeepSeek-V2*.
#
# **Next:** your own model: `efflab card` and `efflab advise` with the budgets `decode` and `context`.

# %% [markdown] tags=["zh"]
# ## 13 · 小结
#
# - 文本之后的一个 token 要读全部权重和全文的键值；有了缓存，它只是一个 token 的工作量，而不是全文的。
# - 每秒 token 数的上限是带宽除以字节数。更少的比特、更少的键、窗口都在减少字节；更多的文本和草稿则让读进来的字节多干活。
# - 时间跟着字节走，直到解包、算术或开销占了上风：请用你自己的批量去测。
#
# **参考文献。** Shazeer 2019，*Fast Transformer Decoding*。Pope 等 2022，*Efficiently Scaling Transformer
# Inference*。Ainslie 等 2023，*GQA*。Leviathan 等 2023，*Fast Inference from Transformers via
# Speculative Decoding*。Kwon 等 2023，*PagedAttention*。Xiao 等 2024，*Efficient Streaming Language
# Models with Attention Sinks*。Liu 等 2024，*KIVI*。DeepSeek-AI 2024，*DeepSeek-V2*。
#
# **下一步：** 你自己的模型。用 `efflab card`，以及预算取 `decode`、`context` 的 `efflab advise`。
