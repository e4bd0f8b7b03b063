"""The report's style sheet: inline, light and dark, readable in print."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { --paper:#faf9f6; --card:#fff; --ink:#1d2127; --soft:#5b636e; --line:#e2e0d9; --accent:#2457a6;
  --guided:#3566a8; --filled:#23745a; --left:#c9c4b8; --warn:#8a4b00; --warn-bg:#fff3dc; --warn-line:#eab95a;
  --good:#1c6b47; --good-bg:#e8f5ee; --good-line:#a5d6bd; --on:#fff; --hatch:rgba(0,0,0,.09);
  --sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  --mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace; color-scheme:light dark }
@media (prefers-color-scheme:dark) { :root { --paper:#14171b; --card:#1c2026; --ink:#e8e6e1; --soft:#a3abb6;
  --line:#31373f; --accent:#8db8f2; --guided:#3a6db3; --filled:#267a5d; --left:#4a4f57; --warn:#ffcf87;
  --warn-bg:#33270f; --warn-line:#7a5a1d; --good:#8fdcb6; --good-bg:#13291f; --good-line:#2b5c45;
  --hatch:rgba(255,255,255,.1) } }
* { box-sizing:border-box }
@media (prefers-reduced-motion:no-preference) { html { scroll-behavior:smooth } }
body { margin:0; background:var(--paper); color:var(--ink); font:16px/1.55 var(--sans) }
header, main, footer { max-width:1320px; margin:0 auto; padding:0 24px }
header { padding-top:44px }
footer { padding-top:8px; padding-bottom:48px; color:var(--soft); font-size:14px }
h1 { margin:0; font-size:clamp(26px,4vw,38px); line-height:1.15; letter-spacing:-.02em; font-weight:700;
  overflow-wrap:anywhere }
h2 { margin:0 0 10px; font-size:20px; letter-spacing:-.01em }
a { color:var(--accent); text-underline-offset:2px }
a:focus-visible, summary:focus-visible, .scroll:focus-visible, .strip:focus-visible, video:focus-visible {
  outline:3px solid var(--accent); outline-offset:2px; border-radius:4px }
code, pre { font-family:var(--mono); font-size:.88em; overflow-wrap:anywhere }
.eyebrow { margin:0 0 6px; color:var(--soft); font-size:13px; letter-spacing:.08em; text-transform:uppercase }
.project { margin:6px 0 0; color:var(--soft) }
.soft { color:var(--soft); font-size:14px }
.hidden { position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%); white-space:nowrap }
.badge { display:inline-block; vertical-align:middle; margin-left:8px; padding:3px 12px; border-radius:99px;
  font-size:14px; font-weight:600; letter-spacing:0; border:1px solid }
.badge.good, .notice.good { color:var(--good); background:var(--good-bg); border-color:var(--good-line) }
.badge.warn, .notice.warn { color:var(--warn); background:var(--warn-bg); border-color:var(--warn-line) }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(170px,1fr)); gap:12px; margin:24px 0 20px }
.tile { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:14px 16px }
.tile dt { color:var(--soft); font-size:13px }
.tile dd { margin:2px 0 0; font-variant-numeric:tabular-nums }
.tile b { display:block; font-size:26px; line-height:1.2; letter-spacing:-.02em }
.tile span { color:var(--soft); font-size:13px }
.notice.advice { border-color:var(--line); font-size:14px }
.notice { margin:0 0 20px; padding:12px 16px; border:1px solid; border-radius:12px; font-size:15px }
.notice h2 { font-size:17px; margin:0 0 6px }
.notice ul { margin:0; padding-left:20px }
.notice b { overflow-wrap:anywhere }
main > section:not(.notice) { background:var(--card); border:1px solid var(--line); border-radius:16px;
  padding:22px 24px 24px; margin:0 0 20px }
.facts { display:grid; grid-template-columns:max-content 1fr; gap:6px 24px; margin:0 }
.facts dt { grid-column:1; color:var(--soft) }
.facts dd { grid-column:2; margin:0; overflow-wrap:anywhere }
.legend { display:flex; flex-wrap:wrap; gap:6px 20px; margin:0 0 10px; font-size:14px; color:var(--soft) }
.legend i { display:inline-block; width:14px; height:14px; border-radius:4px; margin-right:7px; vertical-align:-2px }
.curves { display:flex; flex-wrap:wrap; gap:8px 32px }
.curves figure { margin:6px 0 }
.curves svg { max-width:100%; height:auto; color:var(--filled) }
.guided { background:var(--guided) }
.filled { background:var(--filled) }
.left { background:repeating-linear-gradient(45deg,var(--hatch) 0 5px,transparent 5px 10px),var(--left) }
.strip { display:flex; gap:2px; height:14px; border-radius:5px; overflow:hidden }
.strip i { min-width:2px; flex-basis:0 }
.strip.tall { height:30px; border-radius:8px }
.strip span { display:flex; align-items:center; justify-content:center; height:100%; color:var(--on); font-style:normal;
  font-size:13px; font-weight:600; font-variant-numeric:tabular-nums; overflow:hidden; white-space:nowrap }
.strip .left span { color:var(--ink) }
.strip[role=slider] { position:relative; overflow:visible; cursor:ew-resize; touch-action:none }
.strip .head { position:absolute; top:-4px; bottom:-4px; width:3px; margin-left:-1px; border-radius:2px;
  background:var(--ink); box-shadow:0 0 0 1px var(--card) }
.place { margin:6px 0 0; font-variant-numeric:tabular-nums }
.seams { list-style:none; margin:12px 0 0; padding:0; display:grid; gap:16px;
  grid-template-columns:repeat(auto-fill,minmax(min(100%,260px),1fr)); font-size:14px; color:var(--soft) }
.seams div { display:grid; grid-template-columns:1fr 1fr; gap:2px; margin-bottom:4px }
.seams img { display:block; width:100%; border-radius:5px }
.overview { list-style:none; margin:0; padding:0; display:grid; gap:8px }
.overview li { display:grid; grid-template-columns:110px 1fr; align-items:center }
.overview li:only-child { grid-template-columns:1fr }
.scroll { position:relative; overflow-x:auto; margin:16px 0 0; padding-bottom:6px }
table { border-collapse:collapse; font-size:15px }
th { text-align:left; font-weight:600 }
.pictures td, .pictures th { padding:2px }
.pictures th[scope=col] { color:var(--on); font-size:13px; text-align:center; border-radius:5px; padding:1px 0;
  border:2px solid var(--card); background-clip:padding-box; font-variant-numeric:tabular-nums }
.pictures th[scope=col].left { color:var(--ink) }
.pictures th[scope=row] { position:sticky; left:0; z-index:1; background:var(--card); padding-right:14px;
  font-size:14px; white-space:nowrap; vertical-align:middle }
.pictures small { display:block; color:var(--soft); font-weight:400; font-size:12px }
.pictures { width:100%; table-layout:fixed }
.pictures th[scope=row] { width:136px }
.pictures td, .pictures th[scope=col] { min-width:74px }
.pictures img { display:block; border-radius:5px; background:var(--line); height:auto; width:100%; max-width:160px;
  margin:0 auto }
.pictures .none { background:repeating-linear-gradient(45deg,var(--hatch) 0 5px,transparent 5px 10px);
  border-radius:5px }
.masks td { text-align:center; font-size:12px; letter-spacing:.02em; height:26px; border:2px solid var(--card);
  border-radius:7px }
.masks .black { background:#000; color:#cfcfcf; outline:1px solid var(--line); outline-offset:-3px }
.masks .part { background:repeating-linear-gradient(45deg,#000 0 6px,#fff 6px 12px); color:#fff;
  text-shadow:0 0 3px #000,0 0 3px #000,0 0 3px #000; font-weight:600; outline:1px solid #9a9a9a; outline-offset:-3px }
.masks .white { background:#fff; color:#333; outline:1px solid #9a9a9a; outline-offset:-3px }
.wheel { display:inline-block; flex:none; width:34px; height:34px; border-radius:50%;
  background:radial-gradient(closest-side,#fff,transparent),conic-gradient(from 90deg,#f00,#ff0 27.3%,#0f0 38.2%,
  #0ff 45.5%,#00f 65.5%,#f0f 89.1%,#f00) }
.colours { display:flex; gap:12px; align-items:center; margin:14px 0 0 }
.videos { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr)); gap:18px; margin:18px 0 0 }
figure { margin:0 }
video { display:block; width:100%; height:auto; max-height:70vh; background:#000; border-radius:10px }
figcaption { margin-top:6px; font-size:15px }
.timings { width:100% }
.timings th[scope=col] { color:var(--soft); font-weight:400; font-size:13px }
.timings td, .timings th { padding:3px 14px 3px 0 }
.timings .group th { padding-top:14px; border-bottom:1px solid var(--line) }
.timings tbody th[scope=row] { font-weight:400; white-space:nowrap; width:1% }
.timings .part th[scope=row] { padding-left:18px }
.timings .part { color:var(--soft); font-size:14px }
.number { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; width:1% }
.bar i { display:block; height:10px; min-width:1px; border-radius:3px; background:var(--accent) }
.part .bar i { opacity:.45; height:7px }
.plain td, .plain th { padding:5px 22px 5px 0; border-bottom:1px solid var(--line); vertical-align:top;
  overflow-wrap:anywhere }
.plain tbody th { font-weight:400; color:var(--soft) }
.plain thead th { color:var(--soft); font-weight:400; font-size:13px }
.plain tfoot th, .plain tfoot td { border:0; font-weight:600 }
details { margin-top:16px }
summary { cursor:pointer; color:var(--accent) }
pre { background:var(--paper); border:1px solid var(--line); border-radius:10px; padding:14px; overflow-x:auto;
  white-space:pre-wrap; max-height:480px }
@media (max-width:640px) { header, main, footer { padding-left:14px; padding-right:14px }
  main > section:not(.notice) { padding:18px 16px } .facts { grid-template-columns:1fr; gap:0 }
  .facts dt, .facts dd { grid-column:1 } .facts dd { margin-bottom:8px }
  .overview li { grid-template-columns:1fr } }
@media print { body { background:#fff } main > section:not(.notice) { break-inside:avoid; border-color:#ccc }
  video { display:none } * { print-color-adjust:exact; -webkit-print-color-adjust:exact } }
"""
