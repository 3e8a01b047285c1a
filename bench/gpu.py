"""Everything that wants a GPU, in one run: builds the core for CUDA, tests it and measures it. See bench/README.md.

    python bench/gpu.py --output DIR [--stages build,tests,…] [--precisions bf16,…]

Needs Python with a CUDA build of torch, CMake, a C++ compiler and the headers of nlohmann/json (--json-headers); no Node
and no network, so a machine without one must be given what it lacks beforehand. Of test/reference/requirements.txt, in its
versions: model wants diffusers, transformers and safetensors; speed, kernels and compiled diffusers and peft; fidelity all
of them, prodigyopt too; machine, build, tests, resume and small_gpu only torch. All but machine, build and tests want the
model. The time that all takes, or one stage, can be split: --stages and --precisions, each call with an --output of its own.

Each stage writes DIR/<stage>.json, with "error" where it failed, and its log; a stage that fails doesn't hinder the others.
Exits with 1 where one failed.
"""

import argparse
import dataclasses
import filecmp
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The C++ tests that take a device: trainings against golden files in each precision, and exact resume.
TESTS = [
    "trainer_reference_test",
    "options_reference_test",
    "precision_reference_test",
    "text_encoder_reference_test",
    "checkpoint_test",
]
PRECISIONS = ["fp16", "bf16", "no"]
# What the contract asks a GPU to have, less what CUDA itself takes of it.
SMALL_GPU_MIB = 8192 - 700
# Characters of a failed command's words that are kept with the figures: the beginning tells.
SAID_LENGTH = 1000


class StageError(Exception):
    """A stage found what it was made to find."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What all stages know."""

    options: argparse.Namespace
    output: Path
    log: Path  # of the stage

    @property
    def program(self) -> Path:
        return self.options.build / "brushwork-native"

    @property
    def on_gpu(self) -> bool:
        return self.options.device == "cuda"

    def call(self, command: list, env: dict[str, str] | None = None, may_fail: bool = False) -> str:
        """Runs a command, keeps what it says in the stage's log and returns it."""
        words = [str(word) for word in command]
        timeout_s = self.options.timeout
        begin = time.monotonic()
        with self.log.open("a") as log:
            print("$", " ".join(words), file=log, flush=True)
            try:
                done = subprocess.run(
                    words,
                    cwd=ROOT,
                    env={**os.environ, **(env or {})},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=timeout_s,
                )
            except FileNotFoundError as error:
                raise StageError(f"there is no {words[0]}") from error
            except subprocess.TimeoutExpired as error:
                print(error.output, file=log)
                raise StageError(f"{words[0]} took more than {timeout_s} s") from error
            print(done.stdout, f"[{done.returncode} after {time.monotonic() - begin:.1f} s]", sep="\n", file=log)
        if done.returncode != 0 and not may_fail:
            raise StageError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def native(self, command: str, *words, **arguments) -> str:
        place = ["--device", self.options.device, "--threads", self.options.threads]
        return self.call([self.program, command, "--model", self.options.model, *place, *words], **arguments)


def find_libtorch(options: argparse.Namespace) -> Path:
    """The folder that holds torch's include/ and lib/: --libtorch, or this Python's."""
    if options.libtorch:
        return options.libtorch
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise StageError(f"{sys.executable} has no torch: name another one's folder with --libtorch")
    return Path(found.origin).parent


def find_json_headers(options: argparse.Namespace, libtorch: Path) -> Path:
    """The folder that holds nlohmann/json.hpp: --json-headers, the package nlohmann-json, the set-up's or the system's."""
    places = [options.json_headers, libtorch.parent / "include", Path("/usr/include")]
    found = importlib.util.find_spec("nlohmann_json")
    if found is not None and found.submodule_search_locations:
        places.append(Path(found.submodule_search_locations[0]) / "include")
    for place in places:
        if place is not None and (place / "nlohmann" / "json.hpp").exists():
            return place
    raise StageError("no nlohmann/json.hpp: `pip install nlohmann-json`, or name its folder with --json-headers")


def machine(run: Run) -> dict:
    """What it is measured on."""
    facts = {"cores": os.cpu_count(), "python": sys.version.split()[0], "cxx": run.call(["c++", "--version"]).splitlines()[0]}
    for name in ("torch", "diffusers", "peft", "transformers"):
        try:
            facts[name] = importlib.import_module(name).__version__
        except ImportError as error:
            facts[name] = f"absent: {error}"
    if run.on_gpu:
        query = ["--query-gpu=name,memory.total,driver_version,clocks.max.sm", "--format=csv,noheader"]
        facts["gpu"] = run.call(["nvidia-smi", *query]).strip()
    return facts


def build(run: Run) -> dict:
    options = run.options
    libtorch = find_libtorch(options)
    has_cuda = (libtorch / "lib" / "libtorch_cuda.so").exists()
    if run.on_gpu and not has_cuda:
        raise StageError(f"{libtorch} is a build for the CPU: it has no lib/libtorch_cuda.so")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    settings = {
        "LIBTORCH": libtorch,
        "NLOHMANN_INCLUDE_DIR": find_json_headers(options, libtorch),
        "BRUSHWORK_CUDA": "ON" if has_cuda else "OFF",
        # Another compiler than ours may warn of what ours doesn't.
        "BRUSHWORK_WARNINGS_ARE_ERRORS": "OFF",
    }
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    begin = time.monotonic()
    run.call(["cmake", "-S", "native", "-B", options.build, *generator, *definitions])
    run.call(["cmake", "--build", options.build, "--parallel", options.jobs, "--target", "brushwork_native", *TESTS])
    return {"seconds": time.monotonic() - begin, "cuda": has_cuda, "libtorch": str(libtorch)}


def tests(run: Run) -> dict:
    pattern = f"^({'|'.join(TESTS)})$"
    words = ["--test-dir", run.options.build, "--tests-regex", pattern, "--verbose", "--no-tests=error"]
    env = {"BRUSHWORK_TEST_DEVICE": run.options.device}
    said = run.call(["ctest", *words, "--parallel", "4"], env=env, may_fail=True)
    results = dict(re.findall(r"Test\s+#\d+: (\w+) \.+\s*(\**\w+)", said))
    measured = re.findall(r"# ([\w ]+: loss .*)", said)
    failures = re.findall(r"^\d+: (not ok .*\n\d+: .*)$", said, re.MULTILINE)
    report(run, {"results": results, "measured": measured, "failures": failures})
    if sorted(results) != sorted(TESTS) or set(results.values()) != {"Passed"}:
        raise StageError("\n".join(failures) or f"tests failed: {results}")
    return {"results": results, "measured": measured}


def model(run: Run) -> dict:
    if not (run.options.model / "model_index.json").exists():
        run.call([sys.executable, ROOT / "test" / "fidelity" / "full_size.py", run.options.model])
    size = sum(file.stat().st_size for file in run.options.model.glob("*/*.safetensors"))
    return {"directory": str(run.options.model), "weights_mib": size / 2**20}


def train(run: Run, name: str, precision: str, *words) -> Path:
    """Trains a synthetic job and returns its checkpoint."""
    output = run.output / "trainings" / f"{precision}-{name}"
    job = ["--images", 5, "--batch", 2, "--accumulation", 2, "--size", run.options.size, "--max-grad-norm", 1, "--flip", 1]
    run.native("train-synthetic", "--precision", precision, "--output", output, *job, *words)
    return output / "checkpoint.safetensors"


def resume(run: Run) -> dict:
    """Trainings that must end with the same bytes, with dropout, in each precision and, in bf16, with the text encoder."""
    epochs = run.options.epochs
    figures = {}
    jobs = [(precision, precision, []) for precision in run.options.precisions]
    if "bf16" in run.options.precisions:
        jobs.append(("text-encoder", "bf16", ["--train-text-encoder", 1]))
    for label, precision, words in jobs:
        whole = train(run, f"{label}-whole", precision, "--epochs", 2 * epochs, *words)
        again = train(run, f"{label}-again", precision, "--epochs", 2 * epochs, *words)
        half = train(run, f"{label}-half", precision, "--epochs", epochs, *words)
        resumed = train(run, f"{label}-resumed", precision, "--epochs", 2 * epochs, "--restore", half, *words)
        low_memory = train(run, f"{label}-memory", precision, "--epochs", 2 * epochs, "--gradient-checkpointing", 1, *words)
        figures[label] = {
            "repeats": filecmp.cmp(whole, again, shallow=False),
            "resumes": filecmp.cmp(whole, resumed, shallow=False),
            "checkpointing_changes_nothing": filecmp.cmp(whole, low_memory, shallow=False),
            "half_differs": not filecmp.cmp(whole, half, shallow=False),
        }
        report(run, figures)
        shutil.rmtree(run.output / "trainings")
    faults = [f"{label}: {name}" for label, facts in figures.items() for name, holds in facts.items() if not holds]
    if faults:
        raise StageError(f"not the same bytes: {', '.join(faults)}")
    return figures


def time_steps(run: Run, cases: dict[str, dict], *more) -> dict:
    """What train_step.py measures in each case."""
    options = run.options
    figures, faults = {}, []
    for label, case in cases.items():
        file = run.output / f"{run.log.stem}-{label}.json"
        words = {"device": options.device, "size": options.size, "model": options.model, "threads": options.threads}
        words |= {"program": run.program, "steps": options.steps, "rounds": options.rounds, "json": file, **case}
        command = [sys.executable, ROOT / "bench" / "train_step.py", *(w for k, v in words.items() for w in (f"--{k}", v))]
        try:
            said = run.call([*command, *more])
            print("\n".join(f"  {label}: {line}" for line in said.splitlines() if "ro" in line), flush=True)
            figures[label] = json.loads(file.read_text())
            file.unlink()
        except StageError as error:
            faults.append(f"{label}: {error}")
        report(run, figures)
    if faults:
        raise StageError("\n".join(faults))
    return figures


def speed(run: Run) -> dict:
    """Time and memory of a step beside the reference, by precision and batch."""
    cases = {f"{p}-{b}": {"precision": p, "batch": b} for b in run.options.batches for p in run.options.precisions}
    return time_steps(run, cases)


def kernels(run: Run) -> dict:
    """What repeatable kernels cost, and gradient checkpointing, in batches of the first size."""
    batch = run.options.batches[0]
    cases = {p: {"precision": p, "batch": batch} for p in run.options.precisions}
    return time_steps(run, cases, "--variants", "plain", "fastest", "checkpointing")


def compiled(run: Run) -> dict:
    """The same in half precision beside a reference that torch.compile has compiled."""
    cases = {p: {"precision": p, "batch": run.options.batches[0]} for p in run.options.precisions if p != "no"}
    return time_steps(run, cases, "--compile")


def small_gpu(run: Run) -> dict:
    """Whether a job with the recipe's defaults fits into a GPU of 8 GiB, and that too little memory is said in words."""
    if not run.on_gpu:
        return {"skipped": "there is no GPU"}
    total_mib = float(run.call(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]).splitlines()[0])
    words = ["--precision", "fp16", "--size", run.options.size, "--steps", 5]

    def limited(memory_mib: float, *more) -> str:
        env = {"PYTORCH_CUDA_ALLOC_CONF": f"per_process_memory_fraction:{memory_mib / total_mib:.5f}"}
        return run.native("bench", *words, *more, env=env, may_fail=True)

    figures = {}
    for name, more in {"plain": [], "checkpointing": ["--gradient-checkpointing", 1], "batch 4": ["--batch", 4]}.items():
        said = limited(SMALL_GPU_MIB, *more)
        is_done = "peak_gpu_mib" in said
        figures[name] = json.JSONDecoder().raw_decode(said[said.index("{") :])[0] if is_done else said[:SAID_LENGTH]
        report(run, figures)
    said = limited(2000)
    figures["too little"] = said[:SAID_LENGTH]
    report(run, figures)
    if not isinstance(figures["plain"], dict):
        raise StageError(f"a job does not fit into 8 GiB: {figures['plain']}")
    if "GPU_OUT_OF_MEMORY" not in said:
        raise StageError(f"too little memory was not noticed: {figures['too little']}")
    return figures


def fidelity(run: Run) -> dict:
    """Forward passes, losses and gradients against the reference in the same precision on the same device."""
    options = run.options
    figures, faults = {}, []
    for precision in options.precisions:
        file = run.output / f"fidelity-{precision}.json"
        words = {"model": options.model, "threads": options.threads, "device": options.device, "precision": precision}
        words |= {"size": options.size, "training-size": options.size, "program": run.program, "json": file}
        command = [sys.executable, ROOT / "test" / "fidelity" / "main.py"]
        said = run.call([*command, *(w for k, v in words.items() for w in (f"--{k}", v))], may_fail=True)
        if not file.exists():
            faults.append(f"{precision}: {said[-2000:]}")
            continue
        figures[precision] = json.loads(file.read_text())
        file.unlink()
        report(run, figures)
        above = [name for name, fact in figures[precision].items() if not fact["measured"] <= fact["limit"]]
        faults += [f"{precision}: above the limit: {', '.join(above)}"] if above else []
    if faults:
        raise StageError("\n".join(faults))
    return figures


STAGES = {
    stage.__name__: stage
    for stage in (machine, build, tests, model, resume, small_gpu, speed, kernels, fidelity, compiled)
}


def results_file(run: Run) -> Path:
    return run.log.with_suffix(".json")


def report(run: Run, figures: dict) -> None:
    results_file(run).write_text(json.dumps(figures, indent=2) + "\n")


def report_failure(run: Run, words: str) -> None:
    """Keeps what the stage had reported before."""
    figures = json.loads(results_file(run).read_text()) if results_file(run).exists() else {}
    report(run, {**figures, "error": words})


def read_options() -> argparse.Namespace:
    def some_of(known: list[str]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            names = text.split(",")
            unknown = [name for name in names if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
            return names

        return read

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="where figures and logs go")
    parser.add_argument("--stages", type=some_of(list(STAGES)), default=list(STAGES), help=f"some of {','.join(STAGES)}")
    parser.add_argument(
        "--precisions",
        type=some_of(PRECISIONS),
        default=PRECISIONS,
        help=f"some of {','.join(PRECISIONS)}, for resume, speed, kernels, fidelity and compiled",
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the script itself")
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "full-size-model", help="made where it is absent")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "gpu", help="build folder")
    parser.add_argument("--libtorch", type=Path, help="folder with torch's include/ and lib/; default: this Python's")
    parser.add_argument("--json-headers", type=Path, help="folder with nlohmann/json.hpp")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 16), help="compilers at a time, 2 GB each")
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 16))
    parser.add_argument("--size", type=int, default=512, help="picture side in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=2, help="of the stages that measure speed")
    parser.add_argument("--epochs", type=int, default=3, help="half of those of the stage resume")
    parser.add_argument("--timeout", type=int, default=580, help="seconds that one command may take")
    options = parser.parse_args()
    # Commands run in the repository's root.
    for name in ("output", "model", "build", "libtorch", "json_headers"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    return options


def main() -> None:
    options = read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.stages:
        run = Run(options, options.output, options.output / f"{name}.log")
        run.log.write_text("")
        results_file(run).unlink(missing_ok=True)
        begin = time.monotonic()
        try:
            figures = STAGES[name](run)
            report(run, figures)
            verdict = "done"
        except Exception as error:  # a defect of this script hinders no other stage either
            words = str(error) if isinstance(error, StageError) else traceback.format_exc()
            print(words, flush=True)
            report_failure(run, words)
            failed.append(name)
            verdict = "FAILED"
        print(f"{name}: {verdict} after {time.monotonic() - begin:.0f} s", flush=True)
        if name in ("machine", "tests", "resume") and verdict == "done":
            print(json.dumps(figures, indent=1), flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else None)


if __name__ == "__main__":
    main()
