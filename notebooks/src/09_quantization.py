# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 09 · Quantization
#
# A weight is stored in 32 bits. Eight are enough, says the article: the model becomes 75 % smaller
# and stays as accurate. We begin with one number, go on to a model, and end with nine ways to run
# it that people really use, some of which turn out slower than what they replace.
#
# | | |
# |---|---|
# | **Claims** | `int8-size`, `int8-accuracy` |
# | **Time** | 40 minutes; the cells run in about 90 seconds |
# | **Afterwards you can** | put a tensor on a grid and say what error and size that gives, tell dynamic from static quantization, find the outliers that spoil a scale, and say why an INT8 model may be slower |

# %% [markdown] tags=["zh"]
# # 09 · 量化
#
# 一个权重用 32 比特存储。文章说 8 比特就够：模型缩小 75 %，精度不变。我们从一个数开始，
# 讲到整个模型，最后把人们真正在用的九种运行方式放在一起比较，其中有几种比它们要替代的还慢。
#
# | | |
# |---|---|
# | **论断** | `int8-size`、`int8-accuracy` |
# | **用时** | 40 分钟；全部单元格运行约 90 秒 |
# | **学完之后** | 能把张量放到网格上，并说出误差和大小；能区分动态量化与静态量化；能找到破坏缩放因子的离群值；能解释 INT8 模型为什么可能更慢 |

# %% tags=["parameters"]
language = "en"
bits = 8  # width of the weights on disk, 2 to 16
n_docstrings = 40  # judged here, 2 to 300
n_calibration = 30  # shown to OpenVINO beforehand, 1 to 150

# %%
from efflab import lab, points
from efflab.compression import affine, int8
from efflab.lab import board, check, explore, predict, show, show_source, table
from efflab.notebooks.quantization import TEXTS, exercises, grids
from efflab.notebooks.quantization import engines as real
from efflab.notebooks.quantization import integers as ints

lab.use_language(language)
lab.use_notebook("09_quantization", exercises.EXERCISES, TEXTS)

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# MiniLM-L6 is a real sentence encoder of 23 million parameters, 91 MB. Most tools quantize the
# linear layers and nothing else. And then the time: OpenVINO in INT8 against plain torch in fp32,
# on 16 texts of 128 tokens. VNNI is the set of instructions by which newer x86 CPUs multiply 8-bit
# numbers and add them up in one step.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# MiniLM-L6 是一个真实的句子编码器，2300 万参数，91 MB。多数工具只量化线性层，其余不动。
# 再估一下时间：16 条各 128 个 token 的文本，OpenVINO INT8 与普通 torch fp32 之比。
# VNNI 是较新的 x86 CPU 上的一组指令，8 比特数的相乘与累加一步完成。

# %%
p_size = predict("How many per cent smaller is MiniLM with its linear layers alone in 8 bits?", "%")

# %%
p_time = predict("OpenVINO's INT8 takes how many times fp32's time on a CPU without VNNI?", "x")

# %% [markdown] tags=["en"]
# ## 2 · Build: from one number to a grid
#
# An integer code stands for a real number: x = scale · (code − zero point) (Jacob et al. 2018). A
# **symmetric** grid has no zero point and treats −x as x. An **affine** grid stretches from the
# least to the largest value, and wastes no levels on a side where nothing lies. Its zero point is a
# whole number, so that 0 comes back exactly; the ends may be off by half a step. On 4 bits:

# %% [markdown] tags=["zh"]
# ## 2 · 实现：从一个数到一张网格
#
# 整数编码代表一个实数：x = 缩放因子 · (编码 − 零点)（Jacob 等 2018）。**对称**网格没有零点，
# −x 与 x 一视同仁；**仿射**网格从最小值铺到最大值，不在空的一侧浪费量化级。零点是整数，
# 所以 0 能精确还原，两端则可能差到半个步长。以 4 比特为例：

# %%
table(grids.one_number(bits=4))

# %%
show_source(affine.grid, affine.round_to_grid)

# %% [markdown] tags=["en"]
# Rounding to levels a step apart errs by step / √12 (root mean square), if values fall anywhere
# between levels. The step comes from the largest value under one scale, so that more scales mean
# smaller steps: one for the **tensor**, one for each output **channel**, or one for each **group**
# of values in a row. Formula and measurement on a real layer of `stdlib-gpt`:

# %% [markdown] tags=["zh"]
# 若数值均匀落在相邻两级之间，舍入的均方根误差就是步长 / √12。步长由同一缩放因子下最大的值决定，
# 所以缩放因子越多，步长越小：整个**张量**一个、每个输出**通道**一个，或每行中每**组**数一个。
# 在 `stdlib-gpt` 的一个真实层上，公式与实测：

# %% tags=["nbval-ignore-output"]
weight = points.language_model().get_parameter(grids.SHOWN).detach()
table(grids.error_rows(weight), digits=3)

# %% [markdown] tags=["en"]
# At 8 bits the formula is right to a few per cent. At 2 bits and one scale for the tensor it fails,
# because three levels are too few for "anywhere between": most weights round to zero, and the error is
# their own size.
#
# ## 3 · Explore: bits, scales, quality
#
# Every weight matrix of `stdlib-gpt` on the grid you choose. Left, one neuron's weights and its
# levels. Right, the size of the file and the quality on fixed held-out source with its interval:
# the model is really run again. (The sample is the same for both points, so a difference much
# smaller than the interval still means something.) How few bits can you go with one scale for each
# tensor? How many bits fewer will do with a scale for every 32 weights?

# %% [markdown] tags=["zh"]
# 8 比特时，公式只差百分之几。2 比特、整个张量共用一个缩放因子时，公式失效：三个量化级太少，
# 谈不上“均匀落在级间”，多数权重都舍入成零，误差就是它们自身的大小。
#
# ## 3 · 探索：比特、缩放因子、质量
#
# 把 `stdlib-gpt` 的每个权重矩阵都放到你选的网格上。左边是一个神经元的权重和它的量化级；右边是文件大小，
# 以及在固定留出源码上的质量和区间：模型真的重新跑了一遍。（两个点用的是同一样本，
# 所以比区间小得多的差别也有意义。）每个张量只用一个缩放因子，最少能用几比特？每 32 个权重一个，又能再省几比特？

# %% tags=["nbval-ignore-output"]
explore(grids.bit_width, frames=6)

# %% [markdown] tags=["en"]
# ## 4 · Measure: is the model 75 % smaller?
#
# A code of 8 bits is a quarter of 32. But a model is more than the weights of its linear layers.

# %% [markdown] tags=["zh"]
# ## 4 · 度量：模型真的小了 75 % 吗？
#
# 8 比特的编码是 32 比特的四分之一。但模型不只是线性层的权重。

# %%
minilm = points.encoder()[0]
show(grids.parts_figure(minilm))

# %%
sizes = grids.file_rows(minilm, bits)
table(sizes)
p_size.reveal(grids.file_rows(minilm)[1]["smaller by (%)"])

# %% [markdown] tags=["en"]
# The files are written and weighed; codes are packed without gaps, so 3 bits take 3 bits. Half of
# MiniLM is its vocabulary. A tool that leaves the tables in float makes it 35 % smaller, not 75.
# With the tables in 8 bits as well, what is missing from 75 % is scales, biases and norms. A scale
# (4 bytes) for every 32 weights costs one bit a weight: for 8 bits too much, for 4 bits worth it.
#
# Two points for the board, both *weight-only*: the arithmetic stays fp32, so the time does too.

# %% [markdown] tags=["zh"]
# 文件大小是真的写到磁盘上量出来的；编码之间不留空隙，3 比特就只占 3 比特。MiniLM 有一半是词表。
# 工具若不量化嵌入表（保留浮点），模型只小 35 %，而不是 75 %。表也用 8 比特之后，离 75 % 差的那一点
# 是缩放因子、偏置和归一化。每 32 个权重一个缩放因子（4 字节），等于每个权重多 1 比特：
# 对 8 比特太贵，对 4 比特值得。
#
# 给总榜加两个点，都是*只量化权重*：算术仍是 fp32，时间也就不变。

# %% tags=["nbval-ignore-output"]
board.add(technique="8-bit weights, per channel", **grids.board_point(8, axis=0))

# %% tags=["nbval-ignore-output"]
board.add(technique="4-bit weights, groups of 32", **grids.board_point(4, group_size=32))

# %% [markdown] tags=["en"]
# ## 5 · Build: computing in integers
#
# To save time too, the *inputs* have to be integers. Then a whole matrix product runs on codes, and
# scales are multiplied in once, at the end. Weights are known beforehand; the input's grid is found
# in one of two ways:
#
# - **dynamic**: from each input, when it arrives. No data needed, a pass over the input each time.
# - **static**: beforehand, by running calibration data through *observers*. Faster, and wrong where
#   the data was not typical.

# %% [markdown] tags=["zh"]
# ## 5 · 实现：用整数计算
#
# 想连时间也省下，*输入*也得是整数。这样整个矩阵乘法都在编码上进行，缩放因子到最后一次乘上。
# 权重事先已知；输入的网格有两种定法：
#
# - **动态**：每个输入到来时现算范围。不需要数据，但每次都要多扫一遍输入。
# - **静态**：事先让校准数据经过*观察器*定好。更快；数据若不典型就会出错。

# %%
show_source(int8.Int8Linear.forward)

# %% [markdown] tags=["en"]
# Our `int_matmul` lets fp32 units carry the whole numbers, exactly: it shows what integers give, not
# how fast they are. The same grid in torch's own kernel has to give the same output:

# %% [markdown] tags=["zh"]
# 这里的 `int_matmul` 借 fp32 单元做整数运算，结果分毫不差：它演示整数计算的结果，不代表速度。
# 同一网格交给 torch 自己的算子，输出应当相同：

# %%
gap = ints.torch_gap()
print("equal to quantized::linear_dynamic:", gap["largest gap"] < 1e-5 * gap["largest"])

# %% [markdown] tags=["en"]
# ### The article's two listings
#
# Their headings are swapped: `quantize_dynamic` is shown as *static* quantization and the other one
# as *dynamic*. And the static one reads `prepare(model, calibration_data)`. The second argument of
# `prepare` is `inplace`. Nothing fails; the data is taken for "true", and calibration never happens.
# It is **prepare**, **run** the data through, **convert**, and the model needs a `QuantStub` where
# floats become codes and a `DeQuantStub` where they return:

# %% [markdown] tags=["zh"]
# ### 文章的两段代码
#
# 两段代码的标题写反了：`quantize_dynamic` 被当作*静态*量化，另一段被当作*动态*量化。
# 静态那段还写成 `prepare(model, calibration_data)`，而 `prepare` 的第二个参数是 `inplace`。
# 它不报错：数据被当成了“真”，校准根本没有发生。正确的三步是 **prepare**、把数据**跑**一遍、**convert**；
# 模型里还要有 `QuantStub`（浮点在此变成编码）和 `DeQuantStub`（在此变回浮点）：

# %% tags=["nbval-ignore-output"]
table(ints.listing_rows())

# %% [markdown] tags=["en"]
# As printed, the observers saw nothing, every scale of an activation is 1, and most of the output is
# lost, with a warning but no error. Without stubs the model is prepared and converted, and then fails
# when it runs.
#
# `torch.ao.quantization` is what the article uses. It still works, and is deprecated: today's
# successors are `torchao` and its PT2E flow, which quantizes an exported graph.
#
# ## 6 · Where it breaks: outliers
#
# One input scale serves all channels. If one channel is 20 times larger than the others, those get
# a twentieth of the levels. MiniLM has such channels, as BERT models often do. A channel's *peak*
# is its largest magnitude:

# %% [markdown] tags=["zh"]
# 照原文写，观察器什么也没看到，激活的缩放因子全是 1，输出基本作废，却只有警告，并不报错。
# 没有 stub 时，准备和转换都能通过，运行时才失败。
#
# 文章用的是 `torch.ao.quantization`。它还能用，但已弃用：今天的继任者是 `torchao` 及其 PT2E 流程，
# 它量化的是导出的计算图。
#
# ## 6 · 哪里会失灵：离群值
#
# 输入只有一个缩放因子，所有通道共用。若某个通道比其他通道大 20 倍，其他通道就只剩二十分之一的量化级。
# 和许多 BERT 类模型一样，MiniLM 里就有这样的通道（*峰值*指一个通道的最大绝对值）：

# %% tags=["nbval-ignore-output"]
table(ints.outlier_rows(layer=0))

# %% tags=["nbval-ignore-output"]
show(ints.outlier_figure())

# %% [markdown] tags=["en"]
# Three remedies. *Cutting off*: give the outliers up and keep the rest precise. *Scales by
# channel*: easy for weights, where each output channel is one sum, and its scale is multiplied in
# afterwards. Not for inputs: their channels are what the product sums over. *Smoothing*
# (SmoothQuant, Xiao et al. 2023): divide input channel j by a factor, multiply column j of the
# weight by it. The product is the same; the outlier has moved to where there are many scales.
# `alpha`, from 0 to 1, says how much of it moves.

# %% [markdown] tags=["zh"]
# 三种对策。*截断*：放弃离群值，换来其余部分的精度。*按通道缩放*：对权重很容易，每个输出通道各是一个和，
# 求完和再乘缩放因子即可；对输入不行，因为乘积正是沿输入通道求和的。*平滑*（SmoothQuant，Xiao 等 2023）：
# 输入的第 j 个通道除以一个因子，权重的第 j 列乘上它。乘积不变，离群值却搬到了有许多缩放因子的地方。
# `alpha`（0 到 1）决定搬走多少。

# %%
show_source(int8.smoothing)

# %% tags=["nbval-ignore-output"]
accuracy = ints.accuracy_rows()
table(accuracy, digits=4)

# %% [markdown] tags=["en"]
# The last column is the worst of the texts: the cosine between the INT8 and the fp32 embedding of
# the same docstring. A scale a channel for weights is worth a lot. Cutting off, which works for
# vision models, ruins this one: its outliers *are* the information. Smoothing keeps them.
#
# One row says "7-bit inputs". Without VNNI instructions, a CPU adds two 8-bit products into 16 bits,
# where they may not fit. torch therefore leaves one bit of every input unused.
#
# ## 7 · Real engines, side by side
#
# The same encoder in nine engines, one interleaved run (recorded). *smoothed* is our smoothing
# before torch's own dynamic INT8, here with a scale a channel and the token table in 8 bits as
# well. OpenVINO's INT8 is calibrated on docstrings by NNCF, its compression tool, after the same
# smoothing, with its token table in 8 bits and the 7-bit rule applied to the weights. MRR (mean
# reciprocal rank): each docstring searches for its function's code, and 1 / (rank of the right one)
# is averaged.

# %% [markdown] tags=["zh"]
# 最后一列是所有文本中最差的：同一段文档字符串的 INT8 嵌入与 fp32 嵌入的余弦。权重每通道一个缩放因子，收益很大。
# 截断在视觉模型上有效，在这里却是灾难：离群值*本身就是*信息。平滑则把它们保留下来。
#
# 有一行写着“输入 7 比特”。没有 VNNI 指令的 CPU 会把两个 8 比特乘积加到 16 比特里，可能装不下。
# 因此 torch 让每个输入空出一位不用。
#
# ## 7 · 真实引擎，同台比较
#
# 同一个编码器放进九种引擎，一次交替测量（存档）。*平滑*指先做我们的平滑，再用 torch 自己的动态 INT8，
# 权重改为每通道一个缩放因子，token 表也用 8 比特。OpenVINO 的 INT8 先做同样的平滑，
# 再由其压缩工具 NNCF 在文档字符串上校准，token 表也是 8 比特，并对权重采用 7 比特的规则。
# MRR（平均倒数排名）：用每段文档字符串检索它的函数代码，取 1 / 正确结果的名次，再求平均。

# %%
show(real.figure())

# %%
table(real.recorded_rows(), digits=3)
p_time.reveal(real.row_of("OpenVINO INT8")[real.LATENCY])

# %% [markdown] tags=["en"]
# Read it by column. **Size**: about 0.26 only where the table was quantized too. **Accuracy**:
# OpenVINO with smoothing keeps a cosine of 0.99 at worst over 300 docstrings that calibration never
# saw; torch's static form rounds every layer's *output* as well, outliers and all, and is not
# usable here. **Time**: for long batches none reaches 0.35, the dashed line and the target that we
# set beforehand, on the recorded machine, which has no VNNI, and OpenVINO's INT8 is no faster than
# its own fp32; the next section shows why. Only the single short text, where eager torch spends its
# time between operators, gains more. With VNNI or AMX it is another matter:
# `efflab experiment int8-engines` measures it there.
#
# Three of the engines again, built and measured here; times are those of 4 texts of 64 tokens. The
# MRR is higher than the recorded one because fewer functions compete: compare it with fp32's beside
# it.

# %% [markdown] tags=["zh"]
# 按列来读。**大小**：只有表也量化了，才降到 0.26 左右。**精度**：OpenVINO 加平滑，在校准从未见过的 300 段文档字符串上，
# 最差的余弦也在 0.99 左右；torch 的静态形式连每层的*输出*也一起舍入，离群值也在其中，在这里不可用。
# **时间**：存档所用的机器没有 VNNI，长批次时没有一个达到 0.35（虚线，我们事先定下的目标），
# OpenVINO 的 INT8 也不比它自己的 fp32 快，下一节说明原因。只有单条短文本收益更大，
# 因为 eager 模式的时间大半花在算子之间。有 VNNI 或 AMX 的 CPU 是另一回事：
# 在那里运行 `efflab experiment int8-engines` 即可测到。
#
# 在本机重新构建并测量其中三个引擎，时间取 4 条各 64 个 token 的文本。这里的 MRR 比存档高，
# 是因为参与检索的函数少：请与旁边 fp32 的 MRR 相比。

# %% tags=["nbval-ignore-output"]
live = real.live_rows(n_docstrings, n_calibration)
table(live)
print("size and mean cosine as recorded:", real.agrees(live))

# %% tags=["nbval-ignore-output"]
here = real.made(n_calibration)
engine = here["OpenVINO INT8"]
board.add(technique=engine.name, **points.encoder_point(engine.embed, engine.nbytes))

# %% tags=["nbval-ignore-output"]
engine = here["torch dynamic INT8"]
board.add(technique=engine.name, **points.encoder_point(engine.embed, engine.nbytes))

# %% [markdown] tags=["en"]
# ### Proxy and task disagree
#
# torch's dynamic INT8 has one scale for all of a weight and 7 bits for inputs. It moves embeddings far
# (cosines down to about 0.9), and retrieval loses a point or two at most:

# %% [markdown] tags=["zh"]
# ### 代理指标与任务不一致
#
# torch 的动态 INT8 让整个权重共用一个缩放因子，输入只有 7 比特。嵌入偏得很远（余弦低到 0.9 左右），
# 检索最多只损失一两个百分点：

# %% tags=["nbval-ignore-output"]
table(real.rank_rows(n_docstrings, n_calibration))

# %% [markdown] tags=["en"]
# Both are right. The cosine says that a *stored* index of fp32 embeddings should not be mixed with
# INT8 queries. The MRR says that when everything is embedded by the same engine, errors that all
# texts share move them together, and the order stays. Which one counts depends on what you ship.
#
# ## 8 · "Why is my INT8 model slower?"
#
# First what this CPU has for short numbers, then one linear layer (256 tokens, 384 → 1536, unless the
# row says otherwise) and one cause in each row: its time over fp32's, measured turn and turn about.

# %% [markdown] tags=["zh"]
# 两者都对。余弦告诉我们：已经*存好*的 fp32 嵌入索引不能和 INT8 查询混用。MRR 告诉我们：
# 当所有文本都由同一引擎编码时，共同的误差让它们一起移动，次序不变。哪个算数，要看你交付的是什么。
#
# ## 8 · “为什么我的 INT8 模型更慢？”
#
# 先看这块 CPU 有哪些处理低精度数的指令，再看一个线性层（除另注明外，256 个 token，384 → 1536），
# 每行一个原因：它的时间与 fp32 之比，交替测量。

# %% tags=["nbval-ignore-output"]
table(ints.cpu_rows())

# %% tags=["nbval-ignore-output"]
slow = ints.slower_rows()
show(ints.slower_figure(slow))

# %% [markdown] tags=["en"]
# | you see | cause | what to do |
# |---|---|---|
# | slower on small layers and few tokens | finding the range, rounding and converting cost more than the product saves | larger batches; static ranges; leave small layers in float |
# | smaller but no faster | weight-only: codes become floats before the product | fine where reading weights is the bottleneck (one token at a time), else quantize inputs too |
# | right accuracy, 2-3 times slower | *fake* quantization: it simulates rounding in fp32, for training and calibration | convert, or export to an engine |
# | many times slower | an integer product for which this CPU has no kernel, so that a plain loop runs | another engine |
# | bf16 many times slower | no bf16 instructions: every number is converted and back | fp32, or another CPU |
# | INT8 no faster than fp32 in a good engine | no VNNI or AMX: three instructions do the work of one | `lscpu`; expect 1-2x, not 4x |

# %% [markdown] tags=["zh"]
# | 现象 | 原因 | 怎么办 |
# |---|---|---|
# | 层小、token 少时更慢 | 求范围、舍入、转换的开销超过乘法省下的时间 | 加大批；用静态范围；小层留在浮点 |
# | 变小了却不变快 | 只量化权重：编码先变回浮点再相乘 | 若瓶颈在读权重（逐个 token 生成）则正好，否则输入也要量化 |
# | 精度正确，却慢两三倍 | *伪*量化：用 fp32 模拟舍入，供训练和校准用 | 转换（convert），或导出到推理引擎 |
# | 慢很多倍 | 这块 CPU 没有对应的整数乘法算子，跑的是普通循环 | 换引擎 |
# | bf16 慢很多倍 | 没有 bf16 指令，每个数都要来回转换 | 用 fp32，或换 CPU |
# | 好的引擎里 INT8 也不比 fp32 快 | 没有 VNNI 或 AMX：三条指令才顶一条 | 用 `lscpu` 查看；预期 1-2 倍，而不是 4 倍 |

# %% [markdown] tags=["en"]
# ## 9 · Verdicts

# %% [markdown] tags=["zh"]
# ## 9 · 结论

# %% tags=["nbval-ignore-output"]
lab.verdict("int8-size", **real.size_verdict(grids.file_rows(minilm)))

# %% tags=["nbval-ignore-output"]
lab.verdict("int8-accuracy", **real.accuracy_verdict(accuracy))

# %% [markdown] tags=["en"]
# ## 10 · Exercises
#
# **09-1.** Write `affine_grid(low, high, bits)`: scale and zero point of the affine grid for values
# from low to high, with codes from 0 to 2^bits − 1. Zero must have a code of its own, also when all
# values are positive or all negative.
#
# <details><summary>Hint</summary>First widen the range until it contains 0. The zero point is the
# code at which the value 0 lies, a whole number.</details>

# %% [markdown] tags=["zh"]
# ## 10 · 练习
#
# **09-1.** 写出 `affine_grid(low, high, bits)`：取值从 low 到 high、编码从 0 到 2^bits − 1 时，
# 仿射网格的缩放因子和零点。即使所有值都为正，或都为负，零也必须有自己的编码。
#
# <details><summary>提示</summary>先把范围扩到包含 0。零点是数值 0 所在的编码，是一个整数。</details>

# %% tags=["exercise", "ex-09-1"]
answer_1 = ...  # def answer_1(low, high, bits): return scale, zero_point

# %%
check("09-1", answer_1)

# %% [markdown] tags=["en", "solution", "ex-09-1"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_1(low, high, bits):
#     low, high = min(low, 0), max(high, 0)
#     scale = (high - low) / (2**bits - 1)
#     return scale, round(-low / scale)
# ```
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-09-1"]
# <details><summary>答案</summary>
#
# ```python
# def answer_1(low, high, bits):
#     low, high = min(low, 0), max(high, 0)
#     scale = (high - low) / (2**bits - 1)
#     return scale, round(-low / scale)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **09-2.** Write `stored_bytes(n, bits, group)`: the bytes of n packed codes in one row, with one
# fp32 scale for each group. What does 4 bits in groups of 32 really cost a weight?
#
# <details><summary>Hint</summary>Codes stand without gaps; a last, short group needs a scale
# too.</details>

# %% [markdown] tags=["zh"]
# **09-2.** 写出 `stored_bytes(n, bits, group)`：一行 n 个紧密排列的编码，每组一个 fp32 缩放因子，共多少字节。
# 4 比特、每组 32 个，平均每个权重实际花多少比特？
#
# <details><summary>提示</summary>编码之间没有空隙；最后不满的一组也要一个缩放因子。</details>

# %% tags=["exercise", "ex-09-2"]
answer_2 = ...  # def answer_2(n, bits, group): return ...

# %%
check("09-2", answer_2)

# %% [markdown] tags=["en", "solution", "ex-09-2"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_2(n, bits, group):
#     return (n * bits + 7) // 8 + 4 * ((n + group - 1) // group)
# ```
#
# 4 + 32 / 32 = 5 bits. Scales in 16 bits would make it 4.5, which is what many file formats do.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-09-2"]
# <details><summary>答案</summary>
#
# ```python
# def answer_2(n, bits, group):
#     return (n * bits + 7) // 8 + 4 * ((n + group - 1) // group)
# ```
#
# 4 + 32 / 32 = 5 比特。缩放因子若用 16 比特就是 4.5，许多文件格式正是这样做的。
#
# </details>

# %% [markdown] tags=["en"]
# **09-3.** Write `smooth(peaks, columns, alpha)`: SmoothQuant's factors from the peak of each input
# channel and the largest magnitude of each weight column (tensors). With alpha = 0.5, input and
# weight are left with equal peaks: check that on paper.
#
# <details><summary>Hint</summary>A power of the one over a power of the other.</details>

# %% [markdown] tags=["zh"]
# **09-3.** 写出 `smooth(peaks, columns, alpha)`：由每个输入通道的峰值和权重每一列的最大绝对值（张量）
# 求 SmoothQuant 的因子。alpha = 0.5 时，平滑之后输入与权重的峰值相等：请在纸上验证。
#
# <details><summary>提示</summary>一个的幂除以另一个的幂。</details>

# %% tags=["exercise", "ex-09-3"]
answer_3 = ...  # def answer_3(peaks, columns, alpha): return ...

# %%
check("09-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-09-3"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_3(peaks, columns, alpha):
#     return peaks**alpha / columns ** (1 - alpha)
# ```
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-09-3"]
# <details><summary>答案</summary>
#
# ```python
# def answer_3(peaks, columns, alpha):
#     return peaks**alpha / columns ** (1 - alpha)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - A grid is a scale and perhaps a zero point. Error = step / √12; more scales, smaller steps.
# - 75 % is right only if the tables are quantized too; half of a small encoder is its vocabulary.
# - Dynamic finds the input's range each time; static needs *prepare, run, convert*.
# - Outliers decide the accuracy. Scales by channel and smoothing keep them; cutting them off does not.
# - Smaller is not faster: that takes inputs in integers, enough work, a kernel and the instructions.
# - Cosine and MRR answer different questions.
#
# **References.** Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient
# Integer-Arithmetic-Only Inference*. Wu et al. 2020, *Integer Quantization for Deep Learning
# Inference*. Dettmers et al. 2022, *LLM.int8()*. Xiao et al. 2023, *SmoothQuant*.
#
# **Next:** 10 · GPTQ: rounding that repairs its own errors, for 4 bits and below.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 网格就是一个缩放因子，也许再加一个零点。误差 = 步长 / √12；缩放因子越多，步长越小。
# - 只有表也量化了，75 % 才成立；小型编码器有一半是词表。
# - 动态量化每次现求输入范围；静态量化要走 *prepare、跑数据、convert* 三步。
# - 精度由离群值决定。按通道缩放和平滑能保住它们，截断不能。
# - 变小不等于变快：还要输入也是整数、计算量够大、有对应的算子和指令。
# - 余弦和 MRR 回答的是不同的问题。
#
# **参考文献。** Jacob 等 2018，*Quantization and Training of Neural Networks for Efficient
# Integer-Arithmetic-Only Inference*。Wu 等 2020，*Integer Quantization for Deep Learning
# Inference*。Dettmers 等 2022，*LLM.int8()*。Xiao 等 2023，*SmoothQuant*。
#
# **下一篇：** 10 · GPTQ：边舍入边修正误差，用于 4 比特及以下。
