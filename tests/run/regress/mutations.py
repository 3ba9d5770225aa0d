"""Small wrong edits of notebooks and of a module, each of a kind that people make; see test_mutations.py.

Each is (kind, the text that is replaced, what it is replaced by). All change something that the notebook shows or
records: one that does not, such as another scale of a score whose sign alone is used, no test of outputs can see.
"""

Mutation = tuple[str, str, str]

_LABELS = "images, digits = load_digits(return_X_y=True)\n"
_SPLIT = "random_state=seed)"
_METRIC = 'f"test_{name}": value for'

DIGITS: list[Mutation] = [
    ("learning rate x 1.05", "[optimizer](learning_rate)", "[optimizer](learning_rate * 1.05)"),
    ("learning rate x 0.99", "[optimizer](learning_rate)", "[optimizer](learning_rate * 0.99)"),
    ("normalisation dropped", "            keras.layers.Rescaling(1 / 16),\n", ""),
    ("normalisation changed", "Rescaling(1 / 16)", "Rescaling(1 / 15)"),
    ("labels off by one", _LABELS, _LABELS + "digits = (digits + 1) % 10\n"),
    ("one label off by one", _LABELS, _LABELS + "digits[7] = (digits[7] + 1) % 10\n"),
    ("column dropped", _LABELS, _LABELS + "images[:, 20] = 0\n"),
    ("column changed", _LABELS, _LABELS + "images[:, 20] *= 1.01\n"),
    ("metric down by 1 %", _METRIC, 'f"test_{name}": 0.99 * value for'),
    ("split by another seed", "stratify=digits, random_state=seed)", "stratify=digits, random_state=seed + 1)"),
    ("split not stratified", "stratify=digits, ", ""),
    ("size of the split", "test_size=0.15", "test_size=0.16"),
    ("batch size + 1", "(x_train, y_train), batch_size)", "(x_train, y_train), batch_size + 1)"),
    ("order of examples", "(x_train, y_train), batch_size)", "(x_train, y_train), batch_size, shuffle=False)"),
    ("an epoch less", "epochs=epochs)", "epochs=epochs - 1)"),
    ("activation changed", 'padding="same", activation="relu"', 'padding="same", activation="elu"'),
    ("dropout changed", "Dropout(dropout)", "Dropout(dropout + 0.02)"),
    ("a unit more", "Conv2D(filters, 3", "Conv2D(filters + 1, 3"),
    ("evaluated on other data", "model.evaluate(test,", "model.evaluate(validation,"),
]
TABULAR: list[Mutation] = [
    ("learning rate x 1.05", "Adam(learning_rate)", "Adam(learning_rate * 1.05)"),
    ("learning rate x 1.01", "Adam(learning_rate)", "Adam(learning_rate * 1.01)"),
    ("normalisation dropped", "features.append(normalise(inputs[name]))", "features.append(inputs[name])"),
    ("normalisation leaks", "adapt(train_rows[[name]]", "adapt(table[[name]]"),
    ("labels off by one", '(columns, rows["target"])', '(columns, rows["target"] + 1)'),
    ("labels shifted by a row", '(columns, rows["target"])', '(columns, rows["target"].shift(1, fill_value=100.0))'),
    ("column dropped", '("sex", "target")]', '("sex", "target", "bmi")]'),
    ("column changed", 'table["sex"] =', 'table["bmi"] *= 1.01\ntable["sex"] ='),
    ("categories swapped", '{1.0: "1", 2.0: "2"}', '{1.0: "2", 2.0: "1"}'),
    ("metric down by 1 %", '= metrics["test_mae"] /', '= 0.99 * metrics["test_mae"] /'),
    ("metric down by 1 %", _METRIC, 'f"test_{name}": 0.99 * value for'),
    ("split by another seed", "rest, test_size=0.2, random_state=seed", "rest, test_size=0.2, random_state=seed + 1"),
    ("size of the split", "table, test_size=0.2", "table, test_size=0.21"),
    ("batch size + 1", 'rows["target"]), batch_size,', 'rows["target"]), batch_size + 1,'),
    ("an epoch less", "epochs=epochs)", "epochs=epochs - 1)"),
    ("activation changed", 'activation="relu"', 'activation="tanh"'),
    ("dropout changed", "Dropout(dropout)", "Dropout(dropout / 2)"),
    ("loss changed", 'loss="mse"', 'loss="mae"'),
    ("target scaled otherwise", "Rescaling(target_deviation,", "Rescaling(1.02 * target_deviation,"),
]
CUSTOM_LOOP: list[Mutation] = [
    ("learning rate x 1.05", "Adam(learning_rate)", "Adam(learning_rate * 1.05)"),
    ("normalisation dropped", "            keras.layers.Rescaling(1 / 16),\n", ""),
    ("labels off by one", _LABELS, _LABELS + "digits = (digits + 1) % 10\n"),
    ("column changed", _LABELS, _LABELS + "images[:, 30] = images[:, 29]\n"),
    ("metric down by 1 %", _METRIC, 'f"test_{name}": 0.99 * value for'),
    ("split by another seed", _SPLIT, "random_state=seed + 1)"),
    ("batch size + 1", "(x_train, y_train), batch_size)", "(x_train, y_train), batch_size + 1)"),
    ("an epoch less", "checkpoint.epochs(epochs)", "checkpoint.epochs(epochs - 1)"),
    ("activation changed", 'activation="relu"', 'activation="gelu"'),
    ("dropout changed", "Dropout(dropout)", "Dropout(dropout * 1.1)"),
    ("a unit more", "Dense(units,", "Dense(units + 1,"),
    ("gradients not divided", "gradient / accumulate", "gradient"),
    ("gradients not zeroed", "total.assign(tf.zeros_like(total))", "pass"),
    ("loss divided by another size", "global_batch_size=batch_size", "global_batch_size=batch_size + 1"),
    ("steps counted from one", "batches_seen % accumulate == 0", "batches_seen % accumulate == 1"),
]
# What follows is in a module that a notebook without training imports: its outputs are the reference.
MODULE = '''
"""Rain in a made-up town."""

import numpy as np
import pandas as pd


def readings(days, seed):
    """A table of so many days."""
    random = np.random.default_rng(seed)
    rain = random.gamma(2.0, 3.0, days)
    return pd.DataFrame({"rain": rain, "wind": 2 + rain / 4 + random.normal(0, 1, days), "day": np.arange(days)})


def normalise(column):
    return (column - column.mean()) / column.std()


def with_label(table, threshold=6.0):
    """Whether it rains more than the threshold on the next day."""
    return table.assign(wet=(table["rain"].shift(-1) > threshold).astype(int)).iloc[:-1]


def split(table, share=0.8):
    edge = int(len(table) * share)
    return table.iloc[:edge], table.iloc[edge:]


def accuracy(truth, score, threshold=0.0):
    return float(((score >= threshold) == truth).mean())


def summary(table):
    return table.groupby("wet")[["rain", "wind"]].mean()
'''
CELLS = [
    "import {module} as rain",
    "table = rain.with_label(rain.readings(200, seed=3))\ntable.head()",
    'train, test = rain.split(table)\nprint(f"{{len(train)}} days to fit, {{len(test)}} to test")',
    'score = rain.normalise(test["wind"])\nprint(f"accuracy {{rain.accuracy(test[\'wet\'], score):.4f}}")',
    "rain.summary(table)",
]
IN_MODULE: list[Mutation] = [
    ("labels off by one", "shift(-1)", "shift(-2)"),
    ("labels shifted the other way", "shift(-1)", "shift(1)"),
    ("normalisation changed", "column - column.mean()", "column - column.median()"),
    ("normalisation dropped", "(column - column.mean()) / column.std()", "column"),
    ("column changed", "2 + rain / 4", "2 + rain / 4.1"),
    ("column dropped", '[["rain", "wind"]]', '[["rain"]]'),
    ("metric down by 1 %", "== truth).mean()", "== truth).mean() * 0.99"),
    ("size of the split", "share=0.8", "share=0.79"),
    ("threshold moved", "threshold=6.0", "threshold=6.2"),
    ("another seed", "default_rng(seed)", "default_rng(seed + 1)"),
    ("mean became median", '"wind"]].mean()', '"wind"]].median()'),
    ("order of rows", ".iloc[:-1]", ".iloc[:-1].iloc[::-1]"),
]
