"""LaTeX as papers write it: siunitx, powers of ten, macros for deviations."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import PlainTable, read_tables

ONE_CELL = (
    r"\begin{{tabular}}{{lS[table-format=2.1]}} Method & {{{}}} \\ \midrule LoRA & {} \\ "
    r"\end{{tabular}}"
)


def read(folder: Path, text: str) -> PlainTable:
    (folder / "t.tex").write_text(text, encoding="utf-8")
    (table,) = read_tables(folder / "t.tex")
    return table


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (r"\num{1.2e6}", 1.2e6),
        (r"\num[round-mode=places]{1.2e6}", 1.2e6),
        (r"\num{296450}", 296_450),
        (r"\num{1.2 x 10^6}", 1.2e6),
        (r"$1.2\times10^6$", 1.2e6),
        (r"$1.2 \times 10^{6}$", 1.2e6),
        (r"$1.2 \cdot 10^{6}$", 1.2e6),
        (r"1.2$\times$10\textsuperscript{6}", 1.2e6),
        (r"\SI{1.2}{\mega\nothing}", 1.2e6),
        (r"\qty{1.2}{M}", 1.2e6),
        ("1.2e6", 1.2e6),
        ("1.2×10^6", 1.2e6),
        ("1.2 × 10⁶", 1.2e6),
        ("1.2e+6", 1.2e6),
        (r"1.2\,M", 1.2e6),
        (r"296\,450", 296_450),
        (r"$\approx\num{1.2e6}$", 1.2e6),
    ],
)
def test_counts(cell: str, value: float, tmp_path: Path) -> None:
    text = (
        rf"\begin{{tabular}}{{lS[table-format=2.1]}} Method & {{Params}} \\ \midrule LoRA & {cell}"
    )
    trainable = read(tmp_path, text + r" \\ \end{tabular}").rows[0].trainable
    assert trainable
    assert trainable.value == pytest.approx(value)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (r"\SI{9.5}{\giga\byte}", 9.5e9),
        (r"\SI{9.5}{GB}", 9.5e9),
        (r"\qty{9.5}{\gibi\byte}", 9.5 * 2**30),
        (r"\qty[mode=text]{9500}{\mega\byte}", 9.5e9),
        (r"\SI{9.5 \pm 0.1}{\giga\byte}", 9.5e9),
        (r"\SIrange{9}{10}{\giga\byte}", 9.5e9),
    ],
)
def test_sizes(cell: str, value: float, tmp_path: Path) -> None:
    text = (
        rf"\begin{{tabular}}{{lS}} Method & {{Memory}} \\ \midrule LoRA & {cell} \\ \end{{tabular}}"
    )
    peak = read(tmp_path, text).rows[0].peak_memory
    assert peak
    assert peak.value == pytest.approx(value)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("93.4(2)", 0.934),
        ("93.4 \\pm 0.2", 0.934),
        ("93.4 +- 0.2", 0.934),
        (r"\num{93.4 +- 0.2}", 0.934),
        (r"\num{93.4(2)}", 0.934),
        (r"93.4\std{0.2}", 0.934),
        (r"$93.4_{(0.2)}$", 0.934),
        (r"$93.4_{0.2}$", 0.934),
        (r"\bfseries 93.4", 0.934),
        (r"\B 93.4", 0.934),
        (r"\best{93.4}", 0.934),
        (r"\SI{93.4}{\percent}", 0.934),
        (r"\cellcolor[HTML]{FFFFC7} 93.4", 0.934),
        (r"\textcolor{red}{93.4}", 0.934),
        (r"{\color{gray}93.4}", 0.934),
        (r"\makecell{93.4}", 0.934),
        (r"93.4\tnote{a}", 0.934),
        (r"93.4\textsubscript{0.2}", 0.934),
    ],
)
def test_accuracies(cell: str, value: float, tmp_path: Path) -> None:
    text = (
        r"\begin{tabular}{l S[table-format=2.1(1)]} \toprule {Method} & {Accuracy} \\ \midrule"
        rf" LoRA & {cell} \\ IA3 & 90.1 \\ \bottomrule \end{{tabular}}"
    )
    table = read(tmp_path, text)
    assert table.ignored == ()
    assert table.rows[0].accuracy == pytest.approx(value)


@pytest.mark.parametrize(
    "environment", ["tabular", "tabular*", "tabularx", "longtable", "tblr", "NiceTabular"]
)
def test_environments(environment: str, tmp_path: Path) -> None:
    width = r"{\linewidth}" if environment in {"tabular*", "tabularx"} else ""
    text = (
        rf"\begin{{{environment}}}{width}{{lS}} Method & {{\makecell{{Peak\\memory}} (GB)}} \\"
        rf" \hline LoRA & 9.5 \\ \end{{{environment}}}"
    )
    table = read(tmp_path, text)
    assert table.ignored == ()
    assert table.rows[0].peak_memory
