"""The paper's values, checked by what the paper derives from them and by where its tables repeat each other."""

import pytest

from splitaudit.experiments.reproduction.published import published_tables

TABLES = published_tables()
SOURCES = ("SVHN", "CIFAR-10", "CIFAR-100", "TinyImageNet")


def test_every_table_is_whole() -> None:
    sizes = {name: (len(table.values), len(table.columns)) for name, table in TABLES.items()}
    assert sizes == {
        "table1": (6, 4),
        "table2": (3, 3),
        "table3": (6, 4),
        "table4": (6, 4),
        "table5": (4, 8),
        "table6": (4, 4),
    }
    for table in TABLES.values():
        assert all(len(values) == len(table.columns) for values in table.values.values())
        assert all(0 < value < 100 for values in table.values.values() for value in values)


@pytest.mark.parametrize("source", SOURCES)
def test_the_default_setting_is_the_same_in_four_tables(source: str) -> None:
    """4,096 instances = alpha 1 = depth 1 = ResNet."""
    values = {
        TABLES["table1"].value("4096", source),
        TABLES["table3"].value("1", source),
        TABLES["table5"].value("1", f"{source} Single"),
        TABLES["table5"].value("1", f"{source} Multi"),
        TABLES["table6"].value(source, "ResNet"),
    }
    assert len(values) == 1


@pytest.mark.parametrize("row", ["1024", "2048", "4096"])
def test_sladv_of_table_2_is_table_1(row: str) -> None:
    assert TABLES["table2"].value(row, "SLADV") == TABLES["table1"].value(row, "CIFAR-10")


def test_table_4_counts_896_images() -> None:
    for values in TABLES["table4"].values.values():
        for value in values:
            assert value == pytest.approx(100 * round(value * 8.96) / 896, abs=0.011)  # some are cut, not rounded


def test_table_5_differences() -> None:
    """As printed, up to the rounding of three numbers."""
    table = TABLES["table5"]
    for row, differences in table.printed.items():
        for source, difference in zip(SOURCES, differences, strict=True):
            multi, single = (table.value(row, f"{source} {size}") for size in ("Multi", "Single"))
            assert multi - single == pytest.approx(difference, abs=0.0151)


def test_table_6_averages() -> None:
    table = TABLES["table6"]
    for column, average in zip(table.columns, table.printed["Avg."], strict=True):
        values = [table.value(source, column) for source in SOURCES]
        assert sum(values) / 4 == pytest.approx(average, abs=0.0051)
