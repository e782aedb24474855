"""The style sheet of reads drawn as HTML."""

from __future__ import annotations

from dataclasses import asdict

from wyr_batch.draw.palette import DARK, LIGHT, Palette, channels
from wyr_batch.draw.runs import KEPT_LEVEL, LEVELS

# Blocks of ten a line, and what a line of them takes, in letters.
_BLOCKS_A_LINE = (2, 3, 4, 5, 6, 8, 10)
_LETTER_EM, _NUMBER_LETTERS, _BLOCK_LETTERS = 0.61, 6, 11

# What notebooks and documentation set to say that they are light or dark, whatever the system is.
_LIGHT_HOSTS = ("[data-theme=light]", "[data-jp-theme-light=true]", ".vscode-light")
_DARK_HOSTS = ("[data-theme=dark]", "[theme=dark]", "[data-jp-theme-light=false]", ".vscode-dark")
_COLOURED = ":is(.wyr-read,.wyr-legend)"

_FIXED = """\
.wyr-read{container:wyr/inline-size;min-width:18em;box-sizing:border-box;margin:0 0 1em;padding:.9em 1em;
border-radius:8px;border:1px solid var(--wyr-edge);background:var(--wyr-paper);color:var(--wyr-ink);text-align:left;
font:13px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.wyr-head{display:flex;flex-wrap:wrap;gap:0 1em;align-items:baseline}
.wyr-name{font-weight:600;font-size:15px;overflow-wrap:anywhere}
.wyr-dim{color:var(--wyr-dim)}
.wyr-calls{display:grid;gap:.1em 1.1em;margin:.5em 0 0;
grid-template-columns:max-content fit-content(16em) fit-content(16em) max-content}
.wyr-calls>span{overflow-wrap:anywhere}
.wyr-lost{font-weight:600}
.wyr-bases{counter-reset:wyr -9;position:relative;margin:.8em 0 0;padding-left:calc((var(--wyr-n) + 1)*1ch);
font:13px/1.9 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.wyr-block{display:inline-block;min-width:10ch;margin-right:1ch;white-space:pre;counter-increment:wyr 10}
.wyr-block::before{position:absolute;left:0;width:calc(var(--wyr-n)*1ch);text-align:right;color:var(--wyr-dim)}
.wyr-block i{font-style:normal;padding:.12em 0}
.wyr-text{margin:.8em 0 0;font-size:15px;line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere;
unicode-bidi:plaintext;text-align:start}
.wyr-text i{font-style:normal;padding:.12em 0;border:0!important}
.wyr-text u{text-decoration:none;border-bottom:2px solid var(--wyr-line)}
.wyr-bar{display:block;width:100%;height:60px;margin:.8em 0 0}
.wyr-line{fill:var(--wyr-line)}
.wyr-ends{display:flex;justify-content:space-between;color:var(--wyr-dim)}
.wyr-legend{margin-left:auto;display:inline-flex;align-items:center;gap:.5em;color:var(--wyr-dim)}
.wyr-legend>span{width:6em;height:.8em;border:1px solid var(--wyr-edge);
background:linear-gradient(90deg,var(--wyr-paper),rgb(var(--wyr-mask)))}
.wyr-legend>u{text-decoration:none;border-bottom:2px solid var(--wyr-line)}
@container wyr (max-width:31em){.wyr-calls{grid-template-columns:max-content 1fr max-content;column-gap:.9em}
.wyr-calls>:nth-child(4n+2){grid-column:2/-1}.wyr-calls>:nth-child(4n+3){grid-column:2}}"""


def _style() -> str:
    light, dark = (",".join(f"{host} {_COLOURED}" for host in hosts) for hosts in (_LIGHT_HOSTS, _DARK_HOSTS))
    kept = ",".join(f"i.wyr-{level}" for level in range(KEPT_LEVEL, LEVELS))
    rules = [
        f"{_COLOURED}{_variables(LIGHT)}",
        f"@media (prefers-color-scheme:dark){{{_COLOURED}{_variables(DARK)}}}",
        f"{light}{_variables(LIGHT)}",
        f"{dark}{_variables(DARK)}",
        _FIXED,
        *map(_line_rule, range(len(_BLOCKS_A_LINE))),
        *(f".wyr-{level}{_shade(level)}" for level in range(LEVELS)),
        f"{kept}{{border-bottom:2px solid var(--wyr-line)}}",
    ]
    return "\n".join(rules) + "\n"


def _variables(palette: Palette) -> str:
    colours = asdict(palette) | {"mask": " ".join(map(str, channels(palette.mask)))}
    return "{" + ";".join(f"--wyr-{name}:{colour}" for name, colour in colours.items()) + "}"


def _line_rule(i: int) -> str:
    """Return the rule that puts as many blocks into a line as fit, and a number before its first."""
    blocks = _BLOCKS_A_LINE[i]
    limits = [f"(min-width:{_width_em(blocks):.2f}em)"] if i else []
    if i + 1 < len(_BLOCKS_A_LINE):
        limits.append(f"(max-width:{_width_em(_BLOCKS_A_LINE[i + 1]) - 0.01:.2f}em)")
    width = f".wyr-bases{{width:{blocks * _BLOCK_LETTERS + 0.5}ch}}"
    number = f".wyr-block:nth-child({blocks}n+1)::before{{content:counter(wyr)}}"
    return f"@container wyr {' and '.join(limits)}{{{width}{number}}}"


def _width_em(blocks: int) -> float:
    return (_NUMBER_LETTERS + blocks * _BLOCK_LETTERS + 0.5) * _LETTER_EM


def _shade(level: int) -> str:
    colour = f"rgb(var(--wyr-mask)/{level / (LEVELS - 1):.0%})"
    return f"{{background:{colour};fill:{colour}}}"


STYLE = _style()
