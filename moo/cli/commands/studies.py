"""What each command does. Heavy modules are imported where they are used, so that `moo --help` is quick."""

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from moo.cli.console import say
from moo.core.errors import InputError, PolicyError, StorageError

out = Console() if sys.stdout.isatty() else Console(width=120)


def run(options: argparse.Namespace) -> int:
    """moo run"""
    from moo.studies.spec.study import load_spec

    spec = load_spec(options.study)
    from moo.cli import tables
    from moo.cli.commands import risk
    from moo.cli.runtime_options import machine_of
    from moo.privacy.release_policy import Policy
    from moo.report import renew_reports, save_report
    from moo.studies.results.weights import weights_of
    from moo.studies.search.estimate import plan_study
    from moo.studies.search.run_study import run_study
    from moo.studies.setup.preflight import check_specification, sampled

    spec = spec.quick() if options.quick else spec
    limits = {"max_risk": options.max_risk, "max_penalty": options.max_penalty}
    limits |= {"allow_unmatched": options.allow_unmatched or None}
    spec = dataclasses.replace(
        spec, **{k: v for k, v in limits.items() if v is not None}, machine=machine_of(options, spec.machine)
    )
    if options.answer_noise == 0 and Policy.parse(options.policy).answer_noise:
        raise PolicyError(
            "--answer-noise must be above 0 with --policy {policy}, got 0: exact numbers would leave.",
            policy=options.policy,
        )
    policy = Policy.parse(options.policy, answer_noise=options.answer_noise)
    spec, _ = sampled(spec, options.sampler, policy)
    check_specification(spec, policy)
    if weights_of(options.weights) and policy.name == "select_one":
        raise PolicyError("--weights must not be given with --policy select_one: its guarantee is of its own choice.")
    name = options.name or spec.name + ("-quick" if options.quick else "")
    folder = Path(options.out) if options.out else Path("moo-runs") / name
    if options.plan:
        with tables.fetching(out) as stage:
            planned = plan_study(spec, n_trials=options.trials, policy=policy, stage=stage)
        tables.print_plan(out, planned)
        return 0
    for line in _notices(spec.data, spec.model):
        say(out, line)
    tables.print_policy(out, policy)
    with tables.Live(out, options.trials, secret=policy.name == "select_one") as live:
        result = run_study(
            spec,
            n_trials=options.trials,
            policy=policy,
            storage=options.storage,
            name=name,
            seed=options.seed,
            sampler=options.sampler,
            executor="processes" if options.workers > 1 else "inline",
            workers=options.workers,
            folder=folder,
            callbacks=[live],
            weights=options.weights,
        )
    result.save(folder)
    if options.confirm:
        return risk.confirm(argparse.Namespace(out=folder, shadows=max(8, spec.training.n_shadows), lang=options.lang))
    written = save_report(result, folder, lang=options.lang)
    renew_reports(folder, but=options.lang)
    tables.print_result(out, result)
    if (folder / "again").is_dir() and not result.refined:
        say(out, "\nThe front is no longer the one that was confirmed: `moo confirm` trains what is new on it.")
    out.print(f"\nWritten: {folder}/front.csv, front.json, {written.name}, study.db", highlight=False)
    return 0


def _notices(data: str, model: str) -> list[str]:
    """Licences of what is fetched from others."""
    from moo.data.catalogue import DATASETS
    from moo.models.pretrained.loading import REGISTRY

    lines = [f"Data {data}: {DATASETS[data].licence}"] if data in DATASETS else []
    return lines + ([f"Model {model}: {REGISTRY[model].licence}"] if model in REGISTRY else [])


def front(options: argparse.Namespace) -> int:
    """moo front"""
    from moo.cli import tables
    from moo.studies.results.result import load_result

    result = load_result(options.out)
    if options.weights is not None:
        result = result.weighed(options.weights)
    if options.keep:
        from moo.report import renew_reports

        result.save(options.out)
        renew_reports(options.out)
    if options.format == "csv":
        sys.stdout.write(result.table.to_csv(index=False))
    elif options.format == "json":
        sys.stdout.write(json.dumps(result.rows(), ensure_ascii=False, indent=1) + "\n")
    else:
        tables.print_result(out, result)
    return 0


def retrain(options: argparse.Namespace) -> int:
    """moo retrain"""
    from moo.cli import tables
    from moo.privacy.composed_epsilon import ComposedEpsilon
    from moo.studies.results.result import load_result
    from moo.studies.workflows.retrain import retrain as train_again

    with tables.fetching(out) as stage:
        written = train_again(options.out, options.trials, to=options.to, stage=stage)
    for folder in written:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        everything = ComposedEpsilon.from_json(card["epsilon_with_other_studies"], delta=card["delta"])
        say(
            out,
            f"{folder}: epsilon {card['epsilon']:.2f} at delta {card['delta']:g} per {card['unit_of_privacy']}, "
            f"all retrained together "
            f"{card['epsilon_of_all_retrained']:.2f}, with other studies on these data {everything}; "
            f"{card['capped']}; claim {card['claim']}",
        )
    for trial in (t for t in load_result(options.out).complete if t.number in options.trials and t.blocking):
        say(
            out,
            f"[bold red]Trial {trial.number} breaks {', '.join(trial.blocking)}[/]: a limit of the study, not of the law.",
        )
    return 0


def report(options: argparse.Namespace) -> int:
    """moo report"""
    from moo.report import save_report
    from moo.studies.results.result import load_result

    out.print(f"Written: {save_report(load_result(options.out), options.out, lang=options.lang)}", highlight=False)
    return 0


def data_list(_: argparse.Namespace) -> int:
    """moo data list"""
    from moo.data.catalogue import DATASETS

    table = Table("name", "what it is", "unit of privacy", "download", "licence", box=None)
    for d in DATASETS.values():
        table.add_row(d.name, d.title, d.unit, f"{d.archive.megabytes} MB" if d.archive else "none", d.licence)
    out.print(table)
    out.print("Your own: a path to CSV, Parquet or JSON Lines, with the columns named in a study's TOML.")
    return 0


def data_fetch(options: argparse.Namespace) -> int:
    """moo data fetch"""
    from moo.cli import tables
    from moo.data.catalogue import DATASETS, fetch_dataset, unknown_data

    if options.name not in DATASETS:
        raise unknown_data(options.name)
    out.print(f"Licence of {options.name}: {DATASETS[options.name].licence}", highlight=False)
    with tables.fetching(out) as stage:
        paths = fetch_dataset(options.name, progress=lambda done, total: stage(f"fetching {options.name}", done, total))
    for path in paths:
        say(out, str(path))
    return 0


def data_purge(options: argparse.Namespace) -> int:
    """moo data purge"""
    folder = Path(options.folder)
    if not (folder / "study.key").is_file():
        raise InputError(
            "the folder must be a study's (with a study.key), but got {folder}; nothing was removed.", folder=folder
        )
    removed = [name for name in ("evidence", "trunk", "checkpoints", "logs") if (folder / name).is_dir()]
    for name in removed:
        shutil.rmtree(folder / name)
    out.print(f"Removed from {folder}: {', '.join(removed) or 'nothing was there'}.", highlight=False)
    return 0


def models_list(_: argparse.Namespace) -> int:
    """moo models list"""
    from moo.models.pretrained.loading import REGISTRY

    table = Table("name", "what it is", "languages", "download", "licence", box=None)
    for m in REGISTRY.values():
        table.add_row(m.name, m.title, m.languages, f"{m.download_mb} MB", m.licence)
    out.print(table)
    out.print("Others: a hub id or a local folder; safetensors only, no remote code.")
    return 0


def models_fetch(options: argparse.Namespace) -> int:
    """moo models fetch"""
    from moo.cli import tables
    from moo.models.pretrained.catalogue import fetch_model, registered

    out.print(f"Licence of {options.name}: {registered(options.name).licence}", highlight=False)
    with tables.fetching(out) as stage:
        path = fetch_model(options.name, lambda done, total: stage(f"fetching {options.name}", done, total))
    checked = json.loads((path / "checked.json").read_text())
    say(out, f"{path}")
    out.print("checked: " + ", ".join(f"{what} {value:.3f}" for what, value in checked.items()), highlight=False)
    return 0


def mask(options: argparse.Namespace) -> int:
    """moo mask"""
    from moo.cli.commands import mask

    return mask.mask(options, out)


def ledger_show(options: argparse.Namespace) -> int:
    """moo ledger show"""
    from moo.cli import tables
    from moo.privacy.caps import describe_cap
    from moo.privacy.ledger import cap_of, charged, read_entries
    from moo.studies.accounting.account import ledger_path

    entries = read_entries(ledger_path(options.data))
    tables.print_ledger(out, entries)
    say(out, f"{describe_cap(cap_of(entries), charged(entries)).capitalize()}.")
    return 0


def ledger_cap(options: argparse.Namespace) -> int:
    """moo ledger cap"""
    from moo.data.catalogue import DATASETS
    from moo.privacy.caps import Cap, describe_cap
    from moo.studies.accounting.account import cap_and_charges, ledger_of

    if options.data not in DATASETS and not Path(options.data).is_file():
        raise InputError(
            "DATA must be a data set's name or the path to a table, got {data}; see moo data list.", data=options.data
        )
    ledger = ledger_of(options.data)
    seq = ledger.cap(Cap(epsilon=options.epsilon, delta=options.delta), reason=options.reason)
    say(out, f"entry {seq}: {describe_cap(*cap_and_charges(options.data))}.")
    say(out, f"Keep the head elsewhere, so that a ledger without the cap is recognised: {ledger.head()}")
    return 0


def ledger_verify(options: argparse.Namespace) -> int:
    """moo ledger verify"""
    from moo.privacy.ledger import parse_anchor, read_entries, seq_of, verify
    from moo.studies.accounting.account import ledger_path

    path = ledger_path(options.data)
    entries = read_entries(path)
    anchors = [f"{seq_of(text, entries)}:{text}" if ":" not in text else text for text in options.anchor]
    found = verify(path, dict(map(parse_anchor, anchors)))
    if not found.intact:
        raise StorageError(
            "the ledger must be as it was written, but {reason}: {path}.", reason=found.reason, path=path
        )
    until = f"anchored up to entry {found.anchored}" if found.anchored else "not anchored: a cut tail would not show"
    out.print(f"intact: {found.entries} entries, {until}", highlight=False)
    return 0


def ledger_anchor(options: argparse.Namespace) -> int:
    """moo ledger anchor"""
    from moo.privacy.ledger import read_entries
    from moo.studies.accounting.account import ledger_path

    last = read_entries(ledger_path(options.data))[-1]
    sys.stdout.write(f"{last.seq}:{last.hash}\n")
    return 0


def ledger_export(options: argparse.Namespace) -> int:
    """moo ledger export"""
    from moo.privacy.ledger import read_entries
    from moo.studies.accounting.account import ledger_path

    for entry in read_entries(ledger_path(options.data)):
        sys.stdout.write(json.dumps(vars(entry), ensure_ascii=False) + "\n")
    return 0


def dashboard(options: argparse.Namespace) -> int:
    """moo dashboard"""
    from moo.dashboard import serve

    serve(
        Path(options.out),
        storage=options.storage,
        port=options.port,
        announce=lambda text: out.print(text, highlight=False),
    )
    return 0
