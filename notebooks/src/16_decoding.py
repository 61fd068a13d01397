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
# *decoding*: each new token reads every weight and everything said so far. That is what INT8 and
# INT4 are really for, and what today's models have changed their attention for. You write the cache
# yourself, before you see ours; then grouped heads, then the rule by which a small model may guess
# for a large one.
#
# | | |
# |---|---|
# | **Claims** | none of the article's: it does not speak of decoding |
# | **Time** | 50 minutes; the cells run in about a minute |
# | **Afterwards you can** | write a key/value cache, predict tokens a second from bytes, say what grouped, latent and windowed attention save, tell where INT4 pays and where it does not, and accept a draft's tokens without changing what comes out |

# %% [markdown] tags=["zh"]
# # 16 · 解码：一次一个 token
#
# 文章讲的是训练和整段文本。真正运行语言模型的人，付出的代价在*解码*：每生成一个 token，都要把全部权重
# 和此前的全部内容读一遍。INT8 与 INT4 真正的用武之地就在这里，今天的模型也正是为此改了注意力。
# 先由你自己写出缓存，再看我们的写法；接着是分组的头，最后是让小模型替大模型猜词的接受规则。
#
# | | |
# |---|---|
# | **论断** | 无：文章没有谈到解码 |
# | **用时** | 50 分钟；全部单元格运行约一分钟 |
# | **学完之后** | 能写出键值缓存；能由字节数预测每秒多少个 token；能说出分组、潜在向量与窗口注意力各省下什么；知道 INT4 何时划算、何时不划算；能接受草稿模型的 token 而不改变输出的分布 |

# %% tags=["parameters"]
language = "en"
model = "qwen3-8b"  # a preset's name or the path of a config.json
n_tokens = 48  # of the text that is decoded token by token, 8 to 256
n_windows = 8  # held-out windows of 512 tokens that judge quality, 2 to 64

# %%
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from efflab import cost, inference, lab, points
from efflab.compression import affine
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.lab import check, explore, predict, show, show_source, table
from efflab_rooms import texts
from efflab_rooms.decoding import exercises, figures, measure

lab.use_language(language)
lab.use_notebook("16_decoding", exercises.EXERCISES, texts("decoding"))
stdlib_gpt, h100 = points.language_model(), DEVICES["H100 SXM"]

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# Qwen3-8B has 8.2 billion parameters; in bf16 one token reads 15.1 GB of weights, and with 4,096
# tokens before it another 0.6 GB of cache. An H100 reads 3,350 GB a second. One text, one token after
# another: how many a second at most? Then two about this computer.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# Qwen3-8B 有 82 亿参数；用 bf16 时，每个 token 要读 15.1 GB 权重，前面若有 4,096 个 token，还要读 0.6 GB 缓存。
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
# what attention gives, (B,H,1,D).
#
# <details><summary>Hint</summary>Put k and v behind those in the cache along dimension 2, keep them
# there, and attend to all of them. No mask is needed: nothing in the cache is later.</details>

# %% [markdown] tags=["zh"]
# **16-1.** 写出 `attend(q, k, v, cache)`。q、k、v 形状为 (B,H,1,D)，属于最新的 token；`cache` 是一个字典，
# 第一个 token 时为空，由你填写，同一层的下一个 token 拿到的还是它。返回注意力的结果 (B,H,1,D)。
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
show_source(measure.attend)
ways = {"sees itself alone": forgetful, "ours": measure.differences(text, measure.attend)}
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
times = measure.time_tokens((32, 64, 128, 256, 512))
show(figures.token_times(times))
p_cache.reveal(times[512]["whole text"].ratio(times[512]["cached"]))
assert times[512]["whole text"].ratio(times[512]["cached"]) > 4

# %% [markdown] tags=["en"]
# ## 3 · Derive: the bytes of a token
#
# By hand, for `stdlib-gpt` in fp32. A token leaves a key and a value of 192 numbers in each of 6
# layers: 2 · 6 · 192 = 2,304 numbers, 9,216 bytes. The model has 3,161,088 parameters, 12.6 MB, and
# the next token reads them all. So the cache overtakes the weights at 12,644,352 / 9,216 = 1,372
# tokens; its longest text has 512. For today's models, 2 bytes a number:

# %% [markdown] tags=["zh"]
# ## 3 · 推导：一个 token 的字节数
#
# 手算 fp32 的 `stdlib-gpt`。一个 token 在 6 层里各留下 192 个数的键和值：2 · 6 · 192 = 2,304 个数，9,216 字节。
# 模型有 3,161,088 个参数，12.6 MB，下一个 token 要把它们全部读一遍。所以缓存在 12,644,352 / 9,216 = 1,372 个 token 处
# 超过权重，而它的文本最长 512。换成今天的模型，每个数 2 字节：

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
# all of the text. For one text it lies beyond the longest text of all four models. But a server holds
# many texts at once: they share the weights, and none of the cache. (Half of gpt-oss-20b's layers see
# 128 tokens, so that a long text has less cache than this column says; of deepseek-v3's experts 8 of
# 256 are read for a token.)
#
# Why so slow? A prompt of 512 tokens multiplies each weight that it reads 512 times, one new token
# once. FLOPs over bytes, and an H100 has work for its arithmetic from 295 FLOPs a byte on:

# %% [markdown] tags=["zh"]
# “权重 / 一个 token 的缓存”就是两者相等时的 token 数（前提是每一层都看全文）。只有一段文本时，
# 四个模型的这个数都超过各自的最长文本。但服务器同时处理许多文本：权重共用，缓存各有各的。
# （gpt-oss-20b 有一半的层只看 128 个 token，长文本的缓存比这一列推算的少；deepseek-v3 每个 token 只读 256 个专家中的 8 个。）
#
# 为什么这么慢？512 个 token 的提示把读进来的每个权重用 512 次，一个新 token 只用一次。看 FLOPs 与字节之比；
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
# ## 4 · Build: fewer keys
#
# All of a layer's query heads may share some key heads (*grouped-query attention*, Ainslie et al. 2023):
# Llama 3.1 70B has 64 query heads and 8 key heads, an eighth of the cache. One key head for all is
# *multi-query* (Shazeer 2019).
#
# **16-2.** Write `grouped(q, k, v)`: q (B,H,1,D), k and v (B,G,S,D), G divides H, and consecutive H/G
# query heads share a key head. Return (B,H,1,D).
#
# <details><summary>Hint</summary>Either repeat each key head H/G times (`repeat_interleave`), or, without
# copying a key, view q as (B,G,H/G,D): a group's queries are rows of one product.</details>

# %% [markdown] tags=["zh"]
# ## 4 · 实现：更少的键
#
# 一层的所有查询头可以共用少数几个键头（*分组查询注意力*，Ainslie 等 2023）：
# Llama 3.1 70B 有 64 个查询头、8 个键头，缓存只有八分之一。全部共用一个键头即*多查询*（Shazeer 2019）。
#
# **16-2.** 写出 `grouped(q, k, v)`：q 为 (B,H,1,D)，k、v 为 (B,G,S,D)，G 整除 H，相邻的 H/G 个查询头共用一个键头。
# 返回 (B,H,1,D)。
#
# <details><summary>提示</summary>可以把每个键头重复 H/G 次（`repeat_interleave`）；也可以不复制键，
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
# The same 70B model with five kinds of attention. *Latent* attention (DeepSeek-AI 2024) caches one
# narrow vector for all heads, of 512 + 64 numbers, from which keys and values are made; a window keeps
# the last 4,096 tokens alone.

# %% [markdown] tags=["zh"]
# 同一个 70B 模型，五种注意力。*潜在向量*注意力（DeepSeek-AI 2024）为所有头只缓存一个窄向量（512 + 64 个数），
# 键和值由它生成；窗口注意力只保留最近 4,096 个 token。

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
    row["16 such texts: cache / all that a step reads"] = (
        cost.kv_cache_bytes(config, n, 16) / n_bytes
    )
    rows.append(row)
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# Does time follow those bytes? One token's attention over its cache, 16 query heads of 64 channels in
# fp32, with 16, 4 and 1 key heads:

# %% [markdown] tags=["zh"]
# 时间跟着字节走吗？一个 token 对其缓存做注意力，fp32，16 个查询头，每头 64 个通道，键头分别为 16、4、1 个：

# %% tags=["nbval-ignore-output"]
times = measure.time_attention(attend_grouped, (1024, 4096, 16384, 32768), (16, 4, 1))
show(figures.attention_times(times))
assert times[32768][4].ratio(times[32768][16]) < 0.8

# %% [markdown] tags=["en"]
# ## 5 · Where INT8 and INT4 pay
#
# One token reads each weight and multiplies it once, so that fewer bits should be less time, whatever
# the arithmetic is done in. Here 100 million random weights (12 pairs of linear layers, 1,024 to 4,096
# and back), one token, in torch and in OpenVINO; INT8 has a scale a row, INT4 one for 128 weights
# (`nncf.compress_weights`). The inputs stay fp32.

# %% [markdown] tags=["zh"]
# ## 5 · INT8 和 INT4 在哪里划算
#
# 一个 token 把每个权重读一遍、只乘一次，所以不管用什么算术，比特少就该快。下面是一亿个随机权重
# （12 对线性层，1,024 到 4,096 再回来），一个 token，分别用 torch 和 OpenVINO 运行；INT8 每行一个缩放因子，
# INT4 每 128 个权重一个（`nncf.compress_weights`）。输入保持 fp32。

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
engines = measure.engines(measure.Stack().eval(), torch.randn(1, measure.WIDTH))
times = measure.time_steps(engines)[1]
show(figures.formats(times))

# %% tags=["nbval-ignore-output"]
n_weights, rows = 8 * measure.WIDTH**2 * measure.N_BLOCKS, []
for name, timing in times.items():
    n_bytes = n_weights * measure.FORMAT_BITS[name] / 8
    row = {"format": name, "bytes (MB)": n_bytes / 1e6, "time (ms)": 1e3 * timing.median}
    row |= {"read (GB/s)": n_bytes / timing.median / 1e9}
    rows.append(row | {"tokens a second": 1 / timing.median})
table(rows, kind="measured")
p_int4.reveal(times["INT4"].ratio(times["OpenVINO fp32"]))
assert times["INT8"].ratio(times["OpenVINO fp32"]) < 0.8

# %% [markdown] tags=["en"]
# The column "read" says how far time follows bytes: were it bytes alone, all rows would read at the
# same rate. Where it falls, unpacking costs, or the arithmetic; where it rises, more of the weights
# stay in the caches. bf16 has half the bytes, and what it gives depends on the CPU: without
# instructions for it, it may take many times fp32's time.
#
# The price is quality. The same formats on every linear layer of `stdlib-gpt`, bits per byte of
# held-out source:

# %% [markdown] tags=["zh"]
# “读取”一列说明时间在多大程度上跟着字节走：若只由字节决定，各行的读取速率应当相同。低的地方是解包或算术要花时间；
# 高的地方是有更多权重留在高速缓存里。bf16 只有一半字节，效果取决于 CPU：没有相应指令时，用时可能是 fp32 的许多倍。
#
# 代价是质量。把同样的格式用于 `stdlib-gpt` 的每个线性层，看留出源码上的每字节比特数：

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
# costs it much, and the first four tokens of the text bring a quarter of that back, four more recent ones
# next to nothing: attention that finds nothing to look at rests on the first (*attention sinks*, Xiao et al. 2024). The mask stands in the cell:

# %% [markdown] tags=["zh"]
# ## 6 · 更小的缓存：窗口、汇聚点、更少的比特
#
# 缓存若只留最近的 token 呢？`stdlib-gpt` 没有为此训练过。宽 64 的窗口让它损失很多，而文本开头的几个 token
# （四个）能找回其中四分之一，多留四个最近的则几乎没有用：注意力没有可看的东西时，就落在开头的 token 身上（*注意力汇聚点*，Xiao 等 2024）。掩码就在单元格里：


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
# values have no such outliers (KIVI, Liu et al. 2024). A scale for 32 numbers, with a zero point:

# %% [markdown] tags=["zh"]
# （最后一行与前一行的 token 数相同，但全是最近的。）减少比特要温和得多。键的各通道大小不一，而且每个 token 都是同样的通道大，
# 所以键适合*逐通道*缩放；值没有这样的离群通道（KIVI，Liu 等 2024）。每 32 个数一个缩放因子，带零点：


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
# If one token reads all weights and does next to no arithmetic, five tokens at once cost hardly more.
# So a small *draft* model writes a few tokens, the large one reads them in one pass, and keeps them as
# far as they are its own (*speculative decoding*, Leviathan et al. 2023). The rule has to leave the
# distribution of the output exactly what the large model's is.
#
# **16-3.** p and q (V,) are the large model's and the draft's probabilities at one place, `token` is
# what the draft drew from q. Write `accept(p, q, token)`: the chance that the token is accepted, and
# the distribution (V,) from which another is drawn if it is not.
#
# <details><summary>Hint</summary>A token that the draft draws too often (q > p) may only come through
# with chance p / q. What is then missing of p, tokens with p > q, is made good by the second draw:
# p − q where that is positive, divided by its sum.</details>

# %% [markdown] tags=["zh"]
# ## 7 · 实现：让小模型来猜
#
# 既然一个 token 要读全部权重而几乎不做算术，一次算五个 token 也贵不了多少。于是让小的*草稿*模型写出几个 token，
# 大模型一遍读完，凡是符合它自己分布的就留下（*投机解码*，Leviathan 等 2023）。接受规则必须使输出的分布与大模型的分毫不差。
#
# **16-3.** p、q 形状为 (V,)，是大模型与草稿模型在同一位置的概率；`token` 是草稿从 q 中抽到的。写出 `accept(p, q, token)`：
# 返回接受该 token 的概率，以及不接受时改从哪个分布 (V,) 中抽取。
#
# <details><summary>提示</summary>草稿抽得过多的 token（q > p）只能以 p / q 的概率通过。p 中由此缺少的部分，即 p > q 的 token，
# 由第二次抽取补上：取 p − q 的正数部分，除以其总和。</details>

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
#     return min(1.0, (p[token] / q[token]).item()), rest / rest.sum()
# ```
#
# </details>

# %% [markdown] tags=["en"]
# A draw comes out as `token` either because it was drawn and accepted, min(p, q), or because another was
# refused, and that adds what is missing to p. So a share of Σ min(p, q) of the draft's tokens is
# accepted; call it α. With n tokens drafted a pass yields (1 − αⁿ⁺¹) / (1 − α) on average, if all
# places are alike. Which draft? It has to be cheap and to agree:

# %% [markdown] tags=["zh"]
# 输出为某个 token，要么是抽到并接受，概率 min(p, q)；要么是别的 token 被拒绝，而这恰好补上 p 所缺的部分。
# 所以草稿的 token 被接受的比例是 Σ min(p, q)，记作 α。每次起草 n 个，若各处相同，一遍平均得到 (1 − αⁿ⁺¹) / (1 − α) 个。
# 用什么当草稿？既要便宜，又要意见一致：


# %%
def first_layers(n_layer, ids):
    x = stdlib_gpt.embedding(ids)
    for layer in stdlib_gpt.layers[:n_layer]:
        x = layer(x)
    return stdlib_gpt.embedding.logits(stdlib_gpt.final_norm(x))


# %%
drafts = {}
for bits in (8, 4, 3):
    changed = deepcopy(stdlib_gpt)
    for layer in (module for module in changed.modules() if isinstance(module, nn.Linear)):
        layer.weight.data = affine.quantize(layer.weight.data, bits, group_size=32).dequantize()
    drafts[f"its own weights in {bits} bits"] = changed, (bits + 1) / 32
for n_layer in (5, 3):
    drafts[f"its first {n_layer} layers"] = partial(first_layers, n_layer), n_layer / 6
rows = []
for name, (draft, share) in drafts.items():
    accepted, n_draft = measure.acceptance(draft), 4
    n_out = measure.tokens_per_pass(accepted, n_draft)
    row = {"draft": name, "its bytes / the model's": share, "accepted, measured": accepted}
    row |= {"tokens a pass, computed": n_out}
    rows.append(row | {"bytes a token / without a draft": (1 + n_draft * share) / n_out})
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# The last column is what a step costs if time were bytes: under 1 a draft pays. The model's own weights
# in 4 bits guess well; the first layers alone do not, as nobody trained them to. Real drafts are small
# models trained on the same text, or heads on the large one.
#
# ## 8 · Many texts side by side
#
# The other way to give the weights more work: several texts in one step. Time for a step, and tokens a
# second of all texts, here:

# %% [markdown] tags=["zh"]
# 最后一列是假定时间由字节决定时每个 token 的代价：小于 1 就划算。模型自己的 4 比特权重猜得很准；
# 只用前几层则不行，因为没有人为此训练过它们。实际使用的草稿是用同样文本训练的小模型，或接在大模型上的额外输出头。
#
# ## 8 · 许多文本并排
#
# 让权重多干活的另一个办法：一步处理好几段文本。下面是这台机器上一步的时间，以及所有文本合计每秒的 token 数：

# %% tags=["nbval-ignore-output"]
some = {name: engines[name] for name in ("OpenVINO fp32", "INT8", "INT4")}
show(figures.batches(measure.time_steps(some, (1, 4, 16, 64))))

# %% [markdown] tags=["en"]
# A step of 16 texts takes longer than one of 1, but not 16 times: throughput rises, and so does everybody's
# wait. The cache does not share: 64 texts have 64 caches. And with many texts the arithmetic counts again,
# which is why INT4's lead melts.
#
# ## 9 · Explore: what serves
#
# A model, a device, a format, a context, a batch: tokens a second at most, and what lies in memory. Where
# the line is dotted, weights and cache do not fit. Your own model: `efflab run 16 -p
# model=path/to/config.json`. How many texts of 4,096 tokens does an RTX 4090 hold beside Qwen3-8B in
# INT4, and how many in bf16?

# %% [markdown] tags=["zh"]
# 一步 16 段文本比 1 段慢，但不是慢 16 倍：吞吐上升，每个人等待的时间也变长。缓存不能共用：64 段文本就有 64 份。
# 文本一多，算术又成了瓶颈，所以 INT4 的领先会缩小。
#
# ## 9 · 探索：什么能上线
#
# 选模型、设备、格式、上下文、批量：每秒最多多少个 token，内存里有什么。虚线处表示权重加缓存放不下。
# 换成你自己的模型：`efflab run 16 -p model=path/to/config.json`。一块 RTX 4090 上，Qwen3-8B 用 INT4 时能同时放下多少段 4,096 个 token 的文本？用 bf16 呢？

# %%
explore(figures.serving_of(model))

# %% [markdown] tags=["en"]
# ## 10 · Where it breaks
#
# - **It is a bound.** Launching kernels, sampling, networks between cards come on top; a small model
#   such as `stdlib-gpt` spends most of a token's time between its operators.
# - **A cache is memory.** Its texts end at different times, and a server that reserves the longest for
#   each wastes most of it; hence pages (Kwon et al. 2023).
# - **INT4 costs quality** in a small model, and one text gains by it what many texts do not.
# - **A draft that disagrees** makes it slower: every refused token was read for nothing.
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
# - **意见不合的草稿**只会更慢：每个被拒绝的 token 都白读了一遍。
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
# 与 `exercises.continue_plainly` 的 token 相同，在 256 个 token 之后至少快四倍。
#
# <details><summary>提示</summary>提示部分一次算完：各层的键和值就是 `heads(norm(x))` 的结果。然后用 `measure.step`
# 配上你的缓存，一次一个 token。（逐个 token 喂入提示比一遍算完慢。）</details>

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
#             logits = measure.step(ids[:, -1], ids.shape[1] - 1, caches, measure.attend)
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
# （每 32 个数的网格，缩放因子和零点共占 32 比特。）
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
# Speculative Decoding*. Kwon et al. 2023, *PagedAttention*. Xiao et al. 2024, *Efficient Streaming Language
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
