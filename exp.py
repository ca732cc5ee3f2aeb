import sys, time, statistics as st, os, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
import torch
sys.path.insert(0, "benchmarks")
from pace import Setting, ENGINES
from peft_methods.flops import training_flops, matmul_flops_per_second
from transformers.utils import logging; logging.set_verbosity_error(); logging.disable_progress_bar()
torch.set_num_threads(2)
device = "cuda" if torch.cuda.is_available() else "cpu"
what, methods, extra = sys.argv[1].split(","), sys.argv[2].split(","), sys.argv[3:]
tmp = Path("/tmp/exp"); tmp.mkdir(exist_ok=True)
base = ["model.weights=random"] + extra
def per1000(seconds, steps, batch): return 1000 * st.median(seconds) / (steps * batch)
for m in methods:
    row = {}
    for w in what:
        over = ["budget.precision=fp32"] if w == "notebook" else []
        t0 = time.perf_counter()
        try:
            s = Setting("imdb_roberta", m, base + over, device)
            if device == "cuda": torch.cuda.reset_peak_memory_stats()
            steps, windows = (int(x) for x in os.environ.get("SW", "47,3").split(","))
            if w == "notebook": sec = s.as_notebooks_do(tmp, steps, windows)
            elif w == "tuned": sec = s.tuned(tmp, steps, windows)
            elif w.startswith("cudnnoff"):
                torch.backends.cuda.enable_cudnn_sdp(False); sec = s.by_engine(ENGINES["stock"], tmp, steps, windows); torch.backends.cuda.enable_cudnn_sdp(True)
            elif w == "graphnc":
                k = ENGINES["graphed"]; k.compile_layers = False; sec = s.by_engine(k, tmp, steps, windows); k.compile_layers = True
            else: sec = s.by_engine(ENGINES[w], tmp, steps, windows)
        except Exception as e:
            import traceback; traceback.print_exc(limit=-6); print(f"{m:8s} {w:9s} FAILED {type(e).__name__} {str(e)[:300]}", flush=True); continue
        batch = s.recipe.budget.batch_size
        lengths = s.tokens.train.lengths
        fl = training_flops(s.base.shape, lengths, s.method.passes) / len(lengths) * steps * batch / st.median(sec)
        rate = matmul_flops_per_second() if device == "cuda" else 1e12
        mem = torch.cuda.max_memory_reserved() / 2**30 if device == "cuda" else 0
        print(f"{m:8s} {w:9s} {per1000(sec, steps, batch):.3f} s/1000  step {1000*st.median(sec)/steps:.1f} ms  spread {min(sec)/steps*1000:.1f}-{max(sec)/steps*1000:.1f}  {fl/rate*100:.1f} % of {rate/1e12:.0f} T reserved {mem:.1f} GiB all {time.perf_counter()-t0:.0f} s", flush=True)
        del s
        import gc; gc.collect()
        if device == "cuda": torch.cuda.empty_cache()
