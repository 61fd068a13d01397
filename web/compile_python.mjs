/**
 * Python's library and efflab as bytecode: a page that finds it starts in half the time.
 *
 *   node compile_python.mjs PYODIDE FOLDER
 *
 * FOLDER/efflab.zip is compiled by Pyodide's own Python, and its library, without the packages that
 * efflab's answers do not load, is written beside it, as python_stdlib.zip.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [pyodide, folder] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(join(pyodide, "pyodide.mjs")));

const COMPILE = `
import importlib.util, io, marshal, sys, zipfile

def bytecode(source, name):
    # 1: known by a hash of its source, which nobody checks
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    head += importlib.util.source_hash(source)
    return head + marshal.dumps(compile(source, name, "exec", dont_inherit=True, optimize=2))

def compile_zip(path, wanted):
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in sorted(filter(wanted, old.namelist())):
            content, is_code = old.read(name), name.endswith(".py")
            entry = zipfile.ZipInfo(name + "c" if is_code else name)
            new.writestr(entry, bytecode(content, name) if is_code else content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
`;
const USE = `
sys.path.insert(0, "/efflab")
from efflab.publishing.site.answer import answer

for text in ("{", '{"model_type": "unheard"}', '{"model_type": "gpt2", "n_layer": "2"}'):
    assert "refusal" in answer(dict(text=text), {})
for device in ("H100 SXM", "CPU with VNNI"):
    for budget in (None, "decode", "training days"):
        asked = dict(preset="gpt2", device=device, budget=budget, n_devices=1, seq_len=None)
        assert "json" in answer(asked, {})
used = {name.partition(".")[0] for name in sys.modules}
library = next(path for path in sys.path if path.endswith(".zip"))
`;
const python = await loadPyodide();
python.FS.writeFile("/efflab.zip", new Uint8Array(readFileSync(join(folder, "efflab.zip"))));
python.runPython(COMPILE);
const efflab = python.runPython(`compile_zip("/efflab.zip", lambda name: True)`).toJs();
python.unpackArchive(efflab, "zip", { extractDir: "/efflab" });
python.runPython(USE);
const kept = `compile_zip(library, lambda name: name.partition("/")[0].removesuffix(".py") in used)`;
writeFileSync(join(folder, "python_stdlib.zip"), python.runPython(kept).toJs());
writeFileSync(join(folder, "efflab.zip"), efflab);
