"""How does the report look? By light and by dark, on a screen and on paper."""

from __future__ import annotations

SHEET = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #5b6675; --line: #dde2e9; --grid: #e8ebf0;
  --blue: #2f6fed; --green: #23955a; --red: #d23f57; --amber: #c98a00; --violet: #7b52d3; --teal: #168fa0;
  --pink: #c2528b; --brown: #91713d; --slate: #7c8898; --pale: #b9c2ce; --bad: #b3122f; --warn: #fff4d6;
  --warnline: #e0b53a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1b212a; --ink: #e6eaf0; --soft: #9aa6b5; --line: #303947; --grid: #29313d;
  --blue: #6a9bff; --green: #4cc38a; --red: #f0788b; --amber: #e3b341; --violet: #a98bf0; --teal: #4fc3d3;
  --pink: #e58bb8; --brown: #c9a66b; --slate: #8f9bab; --pale: #4b5666; --bad: #ff8fa0; --warn: #3a3013;
  --warnline: #8a6d1a; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 24px 16px 64px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main, header, footer { max-width: 1180px; margin: 0 auto; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 2px; }
h3 { font-size: 14px; margin: 18px 0 6px; }
p { margin: 0 0 10px; }
.soft, figcaption { color: var(--soft); font-size: 13px; }
nav { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 10px 0 18px; font-size: 13px; }
nav a { color: var(--blue); text-decoration: none; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px 18px;
  margin: 0 0 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(46%, 230px), 1fr));
  gap: 10px; margin: 0 0 16px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.tile.asks { border-color: var(--warnline); background: var(--warn); }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 8px 28px; }
figure { margin: 8px 0 0; }
.wide { overflow-x: auto; }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, "Liberation Sans", sans-serif; }
.wide svg { min-width: 720px; }
svg text { fill: var(--soft); }
svg text.strong { fill: var(--ink); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .axis { stroke: var(--line); stroke-width: 1; }
svg .cap { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .band { fill: var(--warnline); fill-opacity: .16; }
svg .lane { fill: var(--grid); fill-opacity: .6; }
svg .badmark, .c-ink { fill: var(--ink); }
svg .run { stroke: var(--card); stroke-width: .6; }
svg .live { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 2; }
svg .line { fill: none; stroke: var(--ink); stroke-width: 1.5; }
svg .track { fill: var(--grid); }
.legend { display: flex; flex-wrap: wrap; gap: 3px 16px; margin: 6px 0 0; padding: 0; list-style: none; font-size: 12px;
  color: var(--soft); }
.legend svg { display: inline-block; width: 11px; height: 11px; margin-right: 5px; vertical-align: -1px; }
.c-blue { fill: var(--blue); } .c-green { fill: var(--green); } .c-red { fill: var(--red); }
.c-amber { fill: var(--amber); } .c-violet { fill: var(--violet); } .c-teal { fill: var(--teal); }
.c-pink { fill: var(--pink); } .c-brown { fill: var(--brown); } .c-slate { fill: var(--slate); }
.c-pale { fill: var(--pale); } .c-bad { fill: var(--bad); } .c-warn { fill: var(--warnline); }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
.whole { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 12px/1.5 ui-monospace, "Liberation Mono", Menlo, monospace; overflow-wrap: anywhere; }
.choices { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--soft); }
ul.plain { list-style: none; margin: 0; padding: 0; }
ul.plain > li { padding: 7px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
ul.plain > li:last-child { border-bottom: 0; }
.note { background: var(--warn); border-left: 3px solid var(--warnline); padding: 7px 12px; margin: 0 0 12px; }
.says { white-space: pre-line; }
ul ul { margin: 2px 0 0; padding-left: 20px; font-size: 13px; }
@media print {
  :root { color-scheme: light; --page: #ffffff; --card: #ffffff; --ink: #000000; --soft: #444444; --line: #cccccc;
    --grid: #e6e6e6; --blue: #2f6fed; --green: #23955a; --red: #d23f57; --amber: #c98a00; --violet: #7b52d3;
    --teal: #168fa0; --pink: #c2528b; --brown: #91713d; --slate: #7c8898; --pale: #b9c2ce; --bad: #b3122f;
    --warn: #fff4d6; --warnline: #e0b53a; }
  body { padding: 0; font-size: 11px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  nav { display: none; }
  section { border: 0; padding: 8px 0; }
  figure, .tile, tr, li { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
  .wide svg { min-width: 0; } }
"""
