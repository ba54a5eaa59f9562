"""How a report looks: one column on a phone, more on a desk, light or dark as the reader's computer is."""

from miniscope_xr.tools.report.player import STYLE as PLAYER_STYLE

STYLE = (
    """
:root{color-scheme:light dark;--paper:#f6f5f1;--card:#fff;--ink:#1b2328;--soft:#5b666d;--rule:#dcdad3;
--line:#1f6f8b;--good:#2e7d4f;--bad:#b93a24;--bar:#8fb8c6;--bar-ink:#1b2328}
@media (prefers-color-scheme:dark){:root{--paper:#14181b;--card:#1d2327;--ink:#e8e6e0;--soft:#a3adb3;--rule:#353d42;
--line:#6fc0da;--good:#6cc592;--bad:#ff8a70;--bar:#33596a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 48px}
header{margin-bottom:20px}
header p{margin:.2em 0}
h1{font-size:1.35rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2em 0 .6em}
h3{font-size:1rem;margin:0 0 .6em}
.soft,small,.ticks,.range,figcaption small,dt{color:var(--soft)}
.verdict{font-size:1.7rem;line-height:1.2;font-weight:650;margin:.5em 0 .2em;text-wrap:balance}
.verdict.good{color:var(--good)}.verdict.bad{color:var(--bad)}
.problems{margin:.6em 0 0;padding-left:1.2em}
.problems li{margin:.3em 0}
section>div,section>figure{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:16px;
margin:0 0 16px}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(118px,1fr));gap:14px 16px;margin:0}
dt{font-size:.85rem}
dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
figure{margin:0}
.scale{display:flex;align-items:center;gap:8px;margin-top:6px;font-size:12px}
.scale span{display:block;height:3px;background:currentColor}
.about{margin:6px 0 0}
figcaption{font-weight:600;margin-bottom:.5em}
figcaption small,h3 small{font-weight:400}
.looks{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:24px}
.plot{display:grid;grid-template-columns:auto 1fr;gap:8px}
.plot svg{width:100%;height:96px;border-left:1px solid var(--rule);border-bottom:1px solid var(--rule)}
.range{display:flex;flex-direction:column;justify-content:space-between;text-align:right;font-size:.8rem;min-width:2.6em;
font-variant-numeric:tabular-nums}
.ticks{display:flex;justify-content:space-between;font-size:.8rem;margin-top:4px;font-variant-numeric:tabular-nums}
.plot+.ticks{padding-left:calc(2.6em + 8px)}
.line{fill:none;stroke:var(--line);stroke-width:1.6px;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.timeline svg{display:block;width:100%;height:44px;border-radius:4px}
.there{fill:var(--bar);background:var(--bar)}.gap{fill:var(--bad);background:var(--bad)}
.key{margin:.6em 0 0;font-size:.9rem}
.key i{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin:0 .35em 0 0;vertical-align:-.1em}
.key i+i,.key i.gap{margin-left:.8em}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:16px}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:10px}
.pictures img,.sheet img{display:block;width:100%;height:auto;border-radius:6px;background:#000}
.sheet figcaption{font-size:.8rem;font-weight:400;margin:.25em 0 0;color:var(--soft);font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:24px}
table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:left;padding:.3em .8em .3em 0;border-bottom:1px solid var(--rule);overflow-wrap:anywhere}
td:not(:first-child){font-variant-numeric:tabular-nums}
summary{cursor:pointer;font-weight:600;min-height:28px}
details[open] summary{margin-bottom:.5em}
footer{margin-top:2em;font-size:.85rem;color:var(--soft)}
@media print{body{background:#fff}.player div{display:none}}
"""
    + PLAYER_STYLE
)
