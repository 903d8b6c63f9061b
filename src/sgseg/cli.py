"""The command line: parses, calls one function of the package, prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import sgseg
from sgseg.anatomy import Laterality
from sgseg.errors import ConfigError, MissingExtraError, SGSegError

if TYPE_CHECKING:
    from PIL import Image

    from sgseg.data import Case
    from sgseg.evaluation import Evaluation
    from sgseg.inference import Identity, Predictor
    from sgseg.reports import Guidance

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Chest X-ray segmentation that writes its own report and is guided by it. Not for clinical use.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets.")
app.add_typer(data_app, name="data")

_GUIDANCE = "none, self, self-soft"
_LEDGER = Path("results/test-ledger.csv")
_Ledger = Annotated[
    Path | None,
    typer.Option(
        "--ledger", help=f"Gets a line for each look at `test`; default: {_LEDGER}, if it is there."
    ),
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"sgseg {sgseg.__version__}")
        raise typer.Exit


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns.", metavar="IMAGE…")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    guidance: Annotated[str | None, typer.Option(help=f"{_GUIDANCE}; default: the model card's.")] = None,
    report: Annotated[str | None, typer.Option(help="Your own words guide instead.")] = None,
    laterality: Annotated[Laterality, typer.Option(help="Whose left the words mean.")] = Laterality.PATIENT,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability above which it is lesion.")
    ] = 0.5,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what OUT already has.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Predict other pictures as well.")] = False,
    model: Annotated[Path | None, typer.Option(help="Another artefact than the shipped one.")] = None,
) -> None:
    """Find the lesions in chest X-rays; writes masks, overlays and predictions.json.

    What is not a frontal chest X-ray is listed and left out. Exit code 1: a file could not be read, or
    nothing was predicted.

    Example: sgseg predict xrays/ --out results --report "lower right lung"
    """
    from sgseg import console
    from sgseg.batch import find_images, predict_files
    from sgseg.reports import Guidance, parse

    if report is not None and guidance not in (None, Guidance.TEXT.value):
        raise ConfigError(f"--report guides itself; leave out --guidance {guidance}")
    zones = None if report is None else parse(report, laterality)
    predictor = sgseg.load(model, threshold=threshold)
    source = Guidance.TEXT if report is not None else _guidance(guidance) or predictor.runtime.guidance
    if source is Guidance.TEXT and zones is None:
        raise ConfigError("--guidance text needs --report")
    paths = find_images(images)
    with (
        _interruptible("the same command and --resume"),
        console.progress("predicting", len(paths)) as advance,
    ):
        results = predict_files(predictor, paths, out, source, zones, laterality, advance, resume, force)
    console.show_results(results, out)
    if results.failed or not results.images:
        raise typer.Exit(1)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Data set.")],
    split: Annotated[str, typer.Option(help="Its split.")] = "valid",
    guidance: Annotated[str, typer.Option(help=f"{_GUIDANCE}, text, or all.")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N cases.")] = None,
    run: Annotated[Path | None, typer.Option(help="A training run instead of the shipped model.")] = None,
    model: Annotated[Path | None, typer.Option(help="Another artefact than the shipped one.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Folder of masks, written by any program, instead of a model.")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1)] = 0.5,
    json_file: Annotated[str | None, typer.Option("--json", help="Write all numbers; - for stdout.")] = None,
    picture: Annotated[Path, typer.Option(help="Best, median, worst case.")] = Path("evaluation.png"),
    ledger: _Ledger = None,
) -> None:
    """Score the model on a data set, through the same predictor that users run, or masks that are there.

    Examples: sgseg evaluate --data QaTa --split test --guidance self

    sgseg evaluate --data QaTa --split test --predictions masks/
    """
    from sgseg import console
    from sgseg.data import read_cases
    from sgseg.formats import save_picture

    _refuse_without_folder(picture, ledger, None if json_file in (None, "-") else Path(str(json_file)))
    if predictions is None:
        predictor = _predictor(run, model, threshold)
        cases = read_cases(data, split)[:limit]
        _tell_if_seen(predictor, split)
        examined = _examine(predictor, cases, guidance)
    else:
        _refuse_beside_predictions(run, model, guidance, threshold)
        cases = read_cases(data, split)[:limit]
        examined = _examine_masks(predictions, cases, tell_extra=limit is None)
    identity, evaluations, sheet = examined
    if split == "test" and limit is None:
        _note_look(ledger, evaluations, identity, data)
    document = {
        "model": identity._asdict(),
        "data": {"name": data.resolve().name, "split": split, "cases": len(cases), "limit": limit},
        "threshold": threshold if predictions is None else None,
        "guidance": {e.name: {**e.summary(), "cases": e.per_case()} for e in evaluations},
    }
    console.show_evaluation(document, to_stderr=json_file == "-")
    _write_document(document, json_file)
    save_picture(sheet, picture)
    _say(f"best, median and worst case: {picture}")


@app.command()
def analyse(
    data: Annotated[Path, typer.Option(help="Data set.")],
    out: Annotated[Path, typer.Option(help="Folder for analysis.html and analysis.json.")],
    split: Annotated[str, typer.Option(help="Its split.")] = "valid",
    negatives: Annotated[Path | None, typer.Option(help="Data set of X-rays without a finding.")] = None,
    run: Annotated[Path | None, typer.Option(help="A training run instead of the shipped model.")] = None,
    model: Annotated[Path | None, typer.Option(help="Another artefact than the shipped one.")] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1)] = 0.5,
    ledger: _Ledger = None,
) -> None:
    """Show where the model errs, whether it knows, and what a perfect report would give.

    Example: sgseg analyse --data QaTa --split valid --out analysis
    """
    from sgseg import console
    from sgseg.data import read_cases
    from sgseg.evaluation import analyse as digest
    from sgseg.evaluation import examine
    from sgseg.formats import save_analysis

    _refuse_without_folder(ledger)
    predictor = _predictor(run, model, threshold)
    cases = read_cases(data, split)
    _tell_if_seen(predictor, split)
    healthy = [] if negatives is None else read_cases(negatives, split)
    own = predictor.runtime.guidance
    possible = [g for g in _possible(predictor, cases) if g is not own]
    with console.progress("evaluating", len(cases) + len(healthy)) as advance:
        evaluations = examine(predictor, cases, [own, *possible], advance)
        unaffected = examine(predictor, healthy, [own], advance)[0] if healthy else None
    if split == "test":
        _note_look(ledger, evaluations, predictor.runtime.identity, data)
    document = {
        "model": predictor.runtime.identity._asdict(),
        "data": {"name": data.resolve().name, "split": split, "cases": len(cases)},
        "threshold": threshold,
        **digest(evaluations, unaffected),
    }
    print(f"look at {save_analysis(document, out).resolve()}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="What sgseg evaluate --json wrote.", metavar="A[:GUIDANCE]")],
    b: Annotated[str, typer.Argument(help="The same, of another system.", metavar="B[:GUIDANCE]")],
    guidance: Annotated[str | None, typer.Option(help="Where A and B have several and name none.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", help="Write all numbers; - for stdout.")] = None,
) -> None:
    """Tell whether one system's masks are better than another's, by a paired test over patients.

    Example: sgseg compare ours.json theirs.json --guidance self
    """
    from sgseg import console
    from sgseg.evaluation import compare as pair
    from sgseg.evaluation import read_evaluation

    of_a, of_b = (read_evaluation(*_file_and_guidance(text, guidance)) for text in (a, b))
    comparison = pair(of_a, of_b)
    console.show_comparison(comparison, to_stderr=json_file == "-")
    _write_document(comparison.document(), json_file)


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo")) -> None:
    """Draw synthetic X-rays and predict them with the shipped model."""
    from sgseg import console
    from sgseg.batch import SEEDS, demonstrate

    with console.progress("predicting", len(SEEDS)) as advance:
        sheet = demonstrate(sgseg.load(), out, advance)
    print(f"look at {sheet.resolve()}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="SGSEG_API_KEY", help="That clients must send; best set as variable.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability above which it is lesion.")
    ] = 0.5,
    model: Annotated[Path | None, typer.Option(help="Another artefact than the shipped one.")] = None,
    upload_mib: Annotated[int, typer.Option(min=1, help="Largest request.")] = 32,
    megapixels: Annotated[int, typer.Option(min=1, max=100, help="Largest image.")] = 25,
    requests: Annotated[int, typer.Option(min=1, help="Answered at once; more are told to wait.")] = 32,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one request.")] = 30,
    kept_images: Annotated[int, typer.Option(min=1, help="Kept in memory for corrections.")] = 32,
) -> None:
    """Serve predictions over HTTP, and the viewer in which they can be corrected.

    Example: sgseg serve, then open http://127.0.0.1:8000
    """
    try:
        from sgseg.serving import Limits, run
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"serving (it found no {error.name})", "serve") from error
    limits = Limits(
        upload_bytes=upload_mib * 2**20,
        pixels=megapixels * 1_000_000,
        requests=requests,
        seconds=timeout,
        kept_images=kept_images,
    )
    predictor = sgseg.load(model, threshold=threshold)
    if not api_key and host not in ("127.0.0.1", "::1", "localhost"):
        _say(f"sgseg: whoever reaches {host}:{port} can use this service; set SGSEG_API_KEY to ask for a key")

    def announce(port: int) -> None:
        print(f"serving at http://{host}:{port}, not for clinical use; stop with Ctrl-C", flush=True)

    run(predictor, host, port, limits, api_key or None, announce)


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(help="A shipped configuration or a YAML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="key=value…")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; default runs/CONFIG.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run where it stopped.")] = None,
) -> None:
    """Train a model.

    Example: sgseg train sgseg-compact data.root=QaTa stages.0.epochs=3
    """
    with _workshop("training"):
        from sgseg.training import config as configs
        from sgseg.training import run
    if (config is None) == (resume is None):
        raise ConfigError(f"give a configuration ({', '.join(configs.names())}) or --resume RUN")
    folder = resume or out or Path("runs") / Path(str(config)).stem
    with _interruptible(f"sgseg train --resume {folder}"):
        if resume is not None:
            weights = run.resume(folder)
        else:
            weights = run.start(configs.load(str(config), overrides or ()), folder)
    print(f"trained: {weights}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished training run.")],
    out: Annotated[Path, typer.Option(help="Folder for the artefact.")],
    data: Annotated[Path, typer.Option(help="Data set whose valid split chooses the guidance.")],
    version: Annotated[str, typer.Option(help="Of the weights.")] = "dev",
    choices: Annotated[
        Path | None, typer.Option(help="For a run trained on valid: a model whose choices it takes.")
    ] = None,
) -> None:
    """Turn a training run into the artefact that predicts without torch."""
    with _workshop("exporting"):
        from sgseg.export import export_run
    export_run(run, out, data, version, choices)
    print(f"exported: {out}; try it with: sgseg predict IMAGE --out DIR --model {out}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Lightning's .ckpt, or a bare state dict.")],
    out: Annotated[Path, typer.Option(help="A new folder, which plays like a training run.")],
    hub: Annotated[Path | None, typer.Option(help="Folder with CXR-BERT's vocabulary.")] = None,
) -> None:
    """Bring over a checkpoint of the authors' released code, of SGSeg or of LanGuideMedSeg.

    Example: sgseg convert sgseg.ckpt --out runs/released
    """
    from sgseg import console

    with _workshop("converting"):
        from sgseg.convert import convert as bring_over
    conversion = bring_over(checkpoint, out, hub)
    console.show_conversion(conversion)
    print(f"converted: {out}; score it with: sgseg evaluate --data QaTa --run {out}")


@app.command()
def reproduce(
    what: Annotated[str, typer.Argument(help="table1, table2, figure2, figure3, figure4 or figure5.")],
    data: Annotated[Path | None, typer.Option(help="QaTa-COV19; the preset smoke draws its own.")] = None,
    preset: Annotated[str, typer.Option(help="paper (a GPU), cpu, or smoke.")] = "cpu",
    seeds: Annotated[
        str | None, typer.Option(help="Of the runs, such as 0,1,2; default: the preset's.", metavar="N[,N]")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Train and examine just these runs now.", metavar="RUN[,RUN]")
    ] = None,
    cases: Annotated[
        str | None, typer.Option(help="What figures 3 to 5 show: parts of names.", metavar="CASE[,CASE]")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for runs, and for pictures with X-rays.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Folder for tables, plots and numbers.")] = Path("results"),
) -> None:
    """Make a table or a figure of the paper: train what is in it and not trained yet, and examine it.

    A table is written anew after each run; what an earlier call finished is taken as it is.

    Examples: sgseg reproduce table1 --preset cpu --data QaTa

    sgseg reproduce table1 --data QaTa --only unet,lvit --seeds 1
    """
    with _workshop("reproducing"):
        from sgseg import reproduce as reproduction
    if preset not in reproduction.PRESETS:
        raise ConfigError(f"there is no preset {preset}; give one of {', '.join(reproduction.PRESETS)}")
    numbers = _listed(seeds)
    if not all(number.isdecimal() for number in numbers):
        raise ConfigError(f"--seeds {seeds} are no whole numbers; give for example 0,1,2")
    bench = reproduction.Bench(preset, data, runs, results, _say)
    with _interruptible("the same command"):
        files = reproduction.reproduce(what, bench, [int(n) for n in numbers], _listed(only), _listed(cases))
    for file in files:
        if file.suffix == ".md":
            print(file.read_text(encoding="utf-8"))
        print(f"written: {file}")


@data_app.command("phantom")
def data_phantom(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    train: Annotated[int, typer.Option(min=0)] = 200,
    valid: Annotated[int, typer.Option(min=0)] = 40,
    test: Annotated[int, typer.Option(min=0)] = 40,
    seed: Annotated[int, typer.Option(min=0)] = 10_000,
    size: Annotated[int, typer.Option(min=64)] = 224,
) -> None:
    """Draw synthetic X-rays with masks and reports, in QaTa's layout; no patient is on them."""
    from sgseg import console
    from sgseg.data.phantom import write_dataset

    with console.progress("drawing", train + valid + test) as advance:
        write_dataset(out, {"train": train, "valid": valid, "test": test}, seed, size, advance)
    print(f"drawn: {out}; train on it with: sgseg train sgseg-compact data.root={out}")


@data_app.command("pseudo-label")
def data_pseudo_label(
    data: Annotated[Path, typer.Argument(help="Data set with captions, in any wording.")],
    out: Annotated[Path, typer.Option(help="Another folder; it can be trained from.")],
    encoder: Annotated[str, typer.Option(help="minilm, cxr-bert, or a folder with CXR-BERT's.")] = "minilm",
    min_cluster_size: Annotated[int, typer.Option(min=2, help="Captions that make a cluster.")] = 3,
) -> None:
    """Give captions their zones by clustering them, as the paper did.

    Example: sgseg data pseudo-label QaTa --out labelled
    """
    from sgseg import console

    with _workshop("pseudo-labelling"):
        from sgseg.training.labelled_sets import label_dataset
    summary = label_dataset(data, out, encoder, min_cluster_size)
    console.show_pseudo_labels(summary)
    print(f"labelled: {out}; train on it with: sgseg train sgseg-compact data.root={out}")


@data_app.command("audit")
def data_audit(
    data: Annotated[Path, typer.Argument(help="Data set.")],
    out: Annotated[Path, typer.Option(help="Folder for audit.html, which shows its images, and audit.json.")],
) -> None:
    """Look for what would mislead training: duplicates, patients in two splits, reports of the other side.

    Example: sgseg data audit QaTa --out audit
    """
    from sgseg import console
    from sgseg.data.audit import audit, list_cases
    from sgseg.formats import save_audit

    listing = list_cases(data)
    with console.progress("looking", len(listing)) as advance:
        audited = audit(listing, advance)
    page = save_audit(audited, out)
    console.show_audit(audited)
    print(f"look at {page.resolve()}")


@data_app.command("refine")
def data_refine(
    source: Annotated[Path, typer.Argument(help="CSV, JSON or XLSX, or a data set.", metavar="TABLE")],
    out: Annotated[Path, typer.Option(help="Folder for the refined table and refinement.csv.")],
    laterality: Annotated[
        Laterality | None, typer.Option(help="Whose left the words mean; default: by column.")
    ] = None,
) -> None:
    """Mend mistyped captions; what they do not tell is listed, never guessed.

    Example: sgseg data refine reports.csv --out refined
    """
    from sgseg import console
    from sgseg.batch.refine import refine_table

    refined = refine_table(source, out, laterality)
    console.show_refined(refined)


def main() -> None:
    """Entry point: what a user can cure is one line on stderr and exit code 1; Typer makes Ctrl-C 130."""
    try:
        app()
    except SGSegError as error:
        _say(f"sgseg: {error}")
        sys.exit(1)
    except OSError as error:  # a disk that is full, a folder that is a file or may not be written to
        place = error.filename or "a file"
        _say(f"sgseg: {place}: {error.strerror or error}; mend that, or name another place")
        sys.exit(1)


@contextmanager
def _interruptible(cure: str) -> Iterator[None]:
    """Tells how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        _say(f"sgseg: interrupted; go on with {cure}")
        raise


def _listed(text: str | None) -> list[str]:
    """What commas separate, each once."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def _workshop(what: str) -> Iterator[None]:
    """Turns a missing part of the workshop into a hint at the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{what} (it found no {error.name})", "train") from error


def _guidance(text: str | None) -> Guidance | None:
    from sgseg.reports import Guidance

    try:
        return None if text is None else Guidance(text)
    except ValueError as error:
        known = ", ".join(g.value for g in Guidance)
        raise ConfigError(f"there is no guidance {text!r}; give one of {known}") from error


def _predictor(run: Path | None, model: Path | None, threshold: float) -> Predictor:
    if run is None:
        return sgseg.load(model, threshold=threshold)
    with _workshop("examining a training run"):
        from sgseg.training.runtime import TorchRuntime
    from sgseg.inference import Predictor

    return Predictor(TorchRuntime.of_run(run), threshold)


def _tell_if_seen(predictor: Predictor, split: str) -> None:
    runtime = predictor.runtime
    if split in runtime.trained_on:
        name, version, _ = runtime.identity
        _say(
            f"sgseg: {name} {version} was trained on a split {split}; if it was this one, its scores say "
            "nothing of other X-rays"
        )


def _possible(predictor: Predictor, cases: list[Case]) -> list[Guidance]:
    """The guidances that model and cases allow."""
    from sgseg.reports import Guidance

    impossible = set() if all(case.zones is not None for case in cases) else {Guidance.TEXT}
    if not predictor.runtime.writes_reports:
        impossible |= {Guidance.SELF, Guidance.SELF_SOFT}
    return [guidance for guidance in Guidance if guidance not in impossible]


def _examine(
    predictor: Predictor, cases: list[Case], guidance: str
) -> tuple[Identity, list[Evaluation], Image.Image]:
    """Who was examined, how it did, and the picture of it."""
    from sgseg import console
    from sgseg.evaluation import MISSING_EXTRA, examine, picture

    runtime = predictor.runtime
    named = _guidance(None if guidance == "all" else guidance)
    guidances = _possible(predictor, cases) if named is None else [named]
    with console.progress("evaluating", len(cases)) as advance:
        evaluations = examine(predictor, cases, guidances, advance)
    if MISSING_EXTRA is not None and evaluations[0].reported.any():
        _say(f"sgseg: left out: {MISSING_EXTRA}")
    best = next((e for e in evaluations if e.guidance is runtime.guidance), evaluations[0])
    return runtime.identity, evaluations, picture(predictor, best)


def _examine_masks(
    folder: Path, cases: list[Case], tell_extra: bool
) -> tuple[Identity, list[Evaluation], Image.Image]:
    """The same of masks that are there."""
    from sgseg import console
    from sgseg.evaluation import examine_masks, find_masks, picture_of_masks
    from sgseg.inference import Identity

    masks = find_masks(folder, cases)
    if tell_extra and masks.extra:
        some = ", ".join(path.name for path in masks.extra[:3])
        _say(f"sgseg: left out: {len(masks.extra):,} files in {folder} that are no case's mask: {some}, …")
    with console.progress("evaluating", len(cases)) as advance:
        evaluation = examine_masks(masks, cases, advance)
    return Identity(folder.resolve().name, "", ""), [evaluation], picture_of_masks(masks, evaluation)


def _refuse_beside_predictions(run: Path | None, model: Path | None, guidance: str, threshold: float) -> None:
    given = {"--run": run, "--model": model, "--guidance": guidance != "all", "--threshold": threshold != 0.5}
    if useless := [option for option, value in given.items() if value]:
        raise ConfigError(f"--predictions scores masks as they are; leave out {', '.join(useless)}")


def _note_look(ledger: Path | None, evaluations: list[Evaluation], identity: Identity, data: Path) -> None:
    """A line in the ledger that is named, or in the project's own where there is one."""
    from sgseg.evaluation import append_to_ledger

    path = ledger or (_LEDGER if _LEDGER.is_file() else None)
    if path is not None:
        append_to_ledger(path, evaluations, identity, data)
        _say(f"this look at test stands in {path}")


def _refuse_without_folder(*files: Path | None) -> None:
    """So that no long work is done for results that cannot be kept."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no folder {file.parent}; make it first")


def _file_and_guidance(text: str, guidance: str | None) -> tuple[Path, str | None]:
    """FILE:GUIDANCE taken apart; a file whose name has a colon stays whole."""
    file, colon, named = text.rpartition(":")
    if not colon or Path(text).is_file():
        return Path(text), guidance
    return Path(file), named


def _write_document(document: dict[str, Any], json_file: str | None) -> None:
    if json_file == "-":
        print(json.dumps(document, indent=2))
    elif json_file is not None:
        from sgseg.formats import write_json

        write_json(Path(json_file), document)
