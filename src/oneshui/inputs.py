"""What the rules of the workflow ask for, by a job's wildcards: input files and parameters, from the config alone.

What looks at files stands in workflow/rules/common.smk. Wildcards are ``dataset``, ``n``, ``seed``, one of ``trained``
or ``origin`` and ``method``, ``table`` and ``figure``, as attributes; they are strings.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from oneshui.config import FACES, PAIRED_SEED, index_options, method_spec
from oneshui.errors import ConfigError
from oneshui.methods import artefact_of, artefact_spec, folds_of, keeper_of, needs_of, reference_of, serves_every_n
from oneshui.report.figures import KINDS
from oneshui.runs import ORIGINAL, RETRAINED, Model, Run, measured_of, models_of, runs_of

Config = Mapping[str, Any]


def methods_that_need(config: Config, *needs: str) -> list[str]:
    """Return the methods that need one of ``artefact``, ``nothing`` or ``data`` beside model and request."""
    return [name for name, entry in config["methods"].items() if needs_of(entry) in needs]


def methods_that_keep(config: Config, *, every_n: bool) -> list[str]:
    """Return the methods with an artefact of their own: one for every request size, or one for each."""
    methods = config["methods"]
    keeping = [name for name in methods_that_need(config, "artefact") if keeper_of(methods, name) == name]
    return [name for name in keeping if serves_every_n(methods[name]) == every_n]


class Runs:
    """What jobs about a dataset or one run of it ask for."""

    def __init__(self, config: Config) -> None:
        self._config, self._seeds = config, list(config["seeds"])

    def index_spec(self, w: Any) -> dict[str, Any]:
        """The part of a dataset's entry that its index depends on."""
        return index_options(self._config["datasets"][w.dataset])

    def published_layout(self, w: Any) -> str:
        """The published dataset that a copy is compared with; ``synthetic``, which is none, for rendered faces."""
        entry = self._config["datasets"][w.dataset]
        return "synthetic" if "synthetic" in entry else str(entry["layout"])

    def training_spec(self, w: Any) -> dict[str, Any]:
        """Everything that a trained model depends on."""
        entry = self._config["datasets"][w.dataset]
        dataset = {key: value for key, value in entry.items() if key != "folder"}
        return {"dataset": dataset, "training": self._config["training"][w.dataset]}

    def initial_weights(self, w: Any) -> str | list[str]:
        """The safetensors file of initial weights, or nothing."""
        training = self._config["training"][w.dataset]
        source = training["init_weights"]
        if source == "random":
            return []
        return f"results/weights/{training['model']}.safetensors" if source == "timm" else str(source)

    def method_spec(self, w: Any) -> dict[str, Any]:
        """Hyper-parameters of a method for one dataset and request size, or for all sizes."""
        return method_spec(self._config["methods"], w.method, w.dataset, _run(w).n)

    def artefact_spec(self, w: Any) -> dict[str, Any]:
        """Those that what a method keeps depends on."""
        return artefact_spec(self.method_spec(w))

    def weights(self, w: Any) -> str:
        """Weights of the model that the job is about."""
        return _run(w).weights(_model(w))

    def start_model(self, w: Any) -> str:
        """The trained model that a method starts from."""
        return _run(w).weights(_model(w).start)

    def request(self, w: Any) -> str:
        """The photos that a method is given."""
        return _run(w).request(_model(w))

    def artefact(self, w: Any) -> str | list[str]:
        """What the method kept of the training data of the model it starts from, or nothing."""
        methods = self._config["methods"]
        keeper = keeper_of(methods, w.method)
        if needs_of(methods[keeper]) != "artefact":
            return []
        return artefact_of(methods[keeper], _run(w), replace(_model(w).start, method=keeper))

    def fold_models(self, w: Any) -> list[str]:
        """The fold models that what a method keeps is made with, if it is."""
        folds = folds_of(self.method_spec(w))
        return [_run(w).weights(Model.of_fold(fold, folds)) for fold in range(folds)]

    def scores(self, w: Any) -> str:
        """Scores of the model that the job is about."""
        return _run(w).scores(_model(w))

    def features(self, w: Any) -> str:
        """Features of the model that the job is about."""
        return _run(w).features(_model(w))

    def paired_seed(self, w: Any) -> int | None:
        """The seed on which an attack chooses offline_a: the next one, or none."""
        if self._config["attack"]["offline_a"] != PAIRED_SEED:
            return None
        return int(self._seeds[(self._seeds.index(int(w.seed)) + 1) % len(self._seeds)])

    def attack_inputs(self, w: Any) -> dict[str, Any]:
        """Scores of the attacked and the reference models with their splits, and the same of the paired seed."""
        run, model = _run(w), _model(w)
        reference, runs = reference_of(self._config["methods"], model), [run]
        if self._config["attack"]["references"] == "seeds":
            runs += [run.with_seed(seed) for seed in self._seeds if seed != run.seed]
        files = {
            "target": run.scores(model),
            "references": [each.scores(reference) for each in runs],
            "splits": [each.splits for each in runs],
        }
        seed = self.paired_seed(w)
        if seed is not None:
            paired = run.with_seed(seed)
            files["paired_target"] = paired.scores(model)
            files["paired_reference"] = paired.scores(reference)
            files["paired_splits"] = paired.splits
        return files


class Results:
    """What tables, figures and the report are made from."""

    def __init__(self, config: Config) -> None:
        self._config, self._seeds = config, list(config["seeds"])
        self._tables, self._figures = config["tables"], config["figures"]
        self._data_methods = methods_that_need(config, "data")

    def table_spec(self, w: Any) -> dict[str, Any]:
        """A table's entry, with what its methods are and how they are written."""
        table = self._tables[w.table]
        return {**table, **self._written(table)}

    def figure_spec(self, w: Any) -> dict[str, Any]:
        """A figure's entry, with what the methods of its table are and how they are written."""
        figure = self._figures[w.figure]
        table = self._tables[figure["table"]]
        spec = {**figure, **self._written(table)}
        if figure["kind"] == "in_turn":
            entries = {name: self._config["methods"][name] for name in table["methods"]}
            spec["of"] = {name: [entry["of"], entry["in_turn"]] for name, entry in entries.items() if "of" in entry}
        return spec

    def table_inputs(self, w: Any) -> dict[str, list[str]]:
        """Metrics, linear probes and traces of a table, and the summary of its attacks."""
        files = self._of_table(w.table)
        summary = [f"results/attacks/{w.table}.csv"] if files["attacks"] else []
        return {"metrics": files["metrics"] + files["refit"] + files["traces"], "attacks": summary}

    def attacks_of_table(self, w: Any) -> list[str]:
        """Attacks on all models of a table."""
        return self._of_table(w.table)["attacks"]

    def measured(self) -> list[str]:
        """What all tables are made from, each file once."""
        return list(dict.fromkeys(f for name in self._tables for kind in self._of_table(name).values() for f in kind))

    def figures(self, *, faces: bool) -> list[str]:
        """Names of the figures that show faces, or of all others."""
        return [name for name, each in self._figures.items() if (each["kind"] == FACES) == faces]

    def figures_to_draw(self) -> list[str]:
        """Names of the figures that are drawn without being asked for by name."""
        return [name for name, each in self._figures.items() if each.get("show_faces", True)]

    def figure_rows(self, w: Any) -> list[str]:
        """Names of the models in the table that a figure is about."""
        return list(map(str, models_of(self._tables[self._figures[w.figure]["table"]])))

    def figure_inputs(self, w: Any) -> list[str]:
        """Files that a figure is drawn from."""
        figure = self._figures[w.figure]
        runs = list(runs_of(self._settings_of(figure), self._seeds))
        files = {
            "table": [f"results/tables/{figure['table']}.csv"],
            "models": [run.weights(model) for model in (ORIGINAL, RETRAINED) for run in runs],
            "identities": self._identities_of(figure),
            **self._of_table(figure["table"]),
        }
        return list(dict.fromkeys(file for need in KINDS[figure["kind"]].needs for file in files[need]))

    def faces_inputs(self, w: Any) -> dict[str, Any]:
        """Identities, splits and pixels of a figure that shows faces.

        Raises:
            ConfigError: the configuration does not ask for it.
        """
        figure = self._figures[w.figure]
        if not figure.get("show_faces"):
            raise ConfigError(f"figures/{w.figure} shows faces. Set its show_faces: true if you may show them.")
        (setting,) = self._settings_of(figure)
        return {
            "identities": self._identities_of(figure),
            "splits": [run.splits for run in runs_of([setting], self._seeds)],
            "images": f"results/data/{setting['dataset']}/images.npy",
        }

    def report_names(self) -> dict[str, list[str]]:
        """Names of the tables, of those that are attacked, and of the figures of ROC curves, in the report's order."""
        return {
            "tables": list(self._tables),
            "attacks": [name for name, each in self._tables.items() if each["privacy"]],
            "roc": [name for name, each in self._figures.items() if each["kind"] == "roc"],
        }

    def report_inputs(self, w: Any = None) -> dict[str, list[str]]:
        """Everything that the report is made from."""
        names = self.report_names()
        whole = [each for each in self._tables.values() if each.get("layout") != "tow"]
        identities = [file for each in whole for file in self._identities(each, each["blocks"])]
        datasets = sorted({setting["dataset"] for each in self._tables.values() for setting in each["blocks"]})
        return {
            "tables": [f"results/tables/{name}.csv" for name in names["tables"]],
            "attacks": [f"results/attacks/{name}.csv" for name in names["attacks"]],
            "roc": [f"results/figures/{name}.csv" for name in names["roc"]],
            "identities": sorted(set(identities)),
            "splits": [Run(name, None, seed).splits for name in datasets for seed in self._seeds],
        }

    def _written(self, table: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """What the methods of a table are, and the labels that they have of their own."""
        entries = {name: self._config["methods"][name] for name in table["methods"]}
        return {
            "labels": {name: entry["label"] for name, entry in entries.items() if "label" in entry},
            "kinds": {name: entry["kind"] for name, entry in entries.items()},
        }

    def _of_table(self, name: str) -> dict[str, list[str]]:
        found = measured_of(self._tables[name], self._seeds, self._data_methods)
        return {kind: [run.measured(kind, model) for run, model in those] for kind, those in found.items()}

    def _settings_of(self, figure: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The settings that a figure is drawn of: its own, or those of its table."""
        return list(figure.get("blocks") or self._tables[figure["table"]]["blocks"])

    def _identities_of(self, figure: Mapping[str, Any]) -> list[str]:
        return self._identities(self._tables[figure["table"]], self._settings_of(figure))

    def _identities(self, table: Mapping[str, Any], settings: list[Mapping[str, Any]]) -> list[str]:
        """What is known of single identities after methods that work from photos."""
        models = [Model("pretrain", name) for name in table["methods"] if name not in self._data_methods]
        return [run.measured("identities", model) for run in runs_of(settings, self._seeds) for model in models]


def _run(w: Any) -> Run:
    """The run that a job is about, without n where it serves every request."""
    n = getattr(w, "n", None)
    return Run(w.dataset, None if n is None else int(n), int(w.seed))


def _model(w: Any) -> Model:
    """The model that a job is about."""
    trained = getattr(w, "trained", "")
    return Model.of(trained or f"{getattr(w, 'origin', 'pretrain')}/{w.method}")
