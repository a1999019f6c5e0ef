#pragma once

namespace preceptor::app {

/// The page's style sheet: a phone first, then a desk, then paper.
inline constexpr char kReportStyle[] = R"css(
:root{color-scheme:light dark;--paper:#fdfdfb;--ink:#1b2430;--soft:#55616f;--rule:#dcdfe3;--tint:#f2f3f1;
--good:#0b6b3f;--bad:#a8231b;--warn:#835500;--blue:#23588f;--band:#23588f26;--pale:#b9c4d0}
@media(prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6e9ec;--soft:#a3aeba;--rule:#333b45;--tint:#1c2229;
--good:#5fcf96;--bad:#ff8f85;--warn:#e6b450;--blue:#7fb4ec;--band:#7fb4ec30;--pale:#4a5663}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:71rem;margin:0 auto;padding:1.5rem 1rem 3rem}
header{border-bottom:1px solid var(--rule);padding-bottom:1.25rem}
.kicker{margin:0 0 .5rem;color:var(--soft);font-size:.8125rem;letter-spacing:.02em;overflow-wrap:anywhere}
h1{margin:0;font-size:clamp(1.5rem,1.1rem + 2vw,2.25rem);line-height:1.2;font-weight:650;letter-spacing:-.015em;text-wrap:balance}
.lead{margin:.75rem 0 0;max-width:46rem;font-size:1.0625rem;color:var(--soft)}.lead b{color:var(--ink);font-weight:600}
h2{margin:2.5rem 0 .25rem;font-size:1.1875rem;line-height:1.3;font-weight:650;letter-spacing:-.005em}
h3{margin:1.25rem 0 .25rem;font-size:1rem;font-weight:650}
p,ul{max-width:46rem;margin:.5rem 0}ul{padding-left:1.2rem}li{overflow-wrap:anywhere}
.note{color:var(--soft);font-size:.875rem}
.alert{margin:1rem 0 0;padding:.6rem .9rem;border-left:3px solid var(--warn);background:var(--tint);max-width:none;font-size:.9375rem}
.alert.bad{border-color:var(--bad);color:inherit}.alert ul{margin:.25rem 0 0}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}.even,.none{color:var(--soft)}
.verdict{font-weight:650}.verdict,.whole{white-space:nowrap}.verdict span{font-size:.8em}
bdi{overflow-wrap:anywhere}
small{font-size:.8125rem;color:var(--soft);font-weight:400}
table{border-collapse:collapse;width:100%;margin:.75rem 0;font-size:.9375rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);font-size:.875rem;padding-bottom:.35rem}
th,td{text-align:left;vertical-align:top;font-weight:400}
th[scope=row]{font-weight:600}
.narrow{width:auto;min-width:min(100%,26rem)}
.narrow th,.narrow td{padding:.3rem 1rem .3rem 0;border-bottom:1px solid var(--rule)}
.narrow td{white-space:nowrap}.narrow th small{display:block;line-height:1.3}
.narrow thead th{font-size:.8125rem;color:var(--soft)}
figure{margin:.75rem 0;max-width:28rem}figcaption{color:var(--soft);font-size:.875rem}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;fill:var(--soft);font-variant-numeric:tabular-nums}
.curves{display:grid;gap:1rem 2.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.curves figure{margin:.5rem 0;max-width:28rem}.curves figcaption{color:var(--ink);font-weight:600;padding-bottom:.4rem}
.grid{stroke:var(--rule);stroke-width:1}.zero{stroke:var(--ink);stroke-width:1}
.whisker{stroke:var(--ink);stroke-width:1.5}
svg .good{fill:var(--good)}svg .bad{fill:var(--bad)}svg .even{fill:var(--soft)}
.band{fill:var(--band)}.curve{fill:none;stroke:var(--blue);stroke-width:1.8;stroke-linejoin:round}
.dot{fill:var(--blue)}.hollow{fill:var(--paper);stroke:var(--warn);stroke-width:1.8}
.bar{fill:var(--blue)}.bar-pale{fill:var(--pale)}
dl{margin:.75rem 0;font-size:.9375rem;max-width:60rem}dt{color:var(--soft);font-size:.8125rem}dd{margin:0 0 .6rem;overflow-wrap:anywhere}
code,pre{font:.8125rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
details{margin:1rem 0;border-top:1px solid var(--rule);border-bottom:1px solid var(--rule)}
summary{padding:.6rem 0;cursor:pointer;font-weight:600}
summary:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
pre{margin:0 0 1rem;padding:.75rem;background:var(--tint);overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere}
footer{margin-top:2.5rem;color:var(--soft);font-size:.8125rem}
@media screen and (max-width:51.99rem){
.cards,.cards tbody,.cards caption{display:block}
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.cards tr{display:grid;grid-template-columns:1fr 1fr;gap:.5rem 1rem;padding:.85rem 0;border-top:1px solid var(--rule)}
.cards th[scope=row]{grid-column:1/-1;font-size:1.0625rem;overflow-wrap:anywhere}
.cards th[scope=row] small{display:block}
.cards td::before{content:attr(data-label);display:block;color:var(--soft);font-size:.75rem;line-height:1.3}
.cards td small{white-space:nowrap}
.cards td.wide{grid-column:1/-1}.cards td.text small{white-space:normal;display:block}
.cards th[scope=row]{order:-2}.cards td.told{order:-1;grid-column:1/-1;margin-top:-.5rem}.cards td.told::before{display:none}
.rounds th[scope=row]::before{content:"Round "}
}
@media print,(min-width:52rem){
.cards th,.cards td{padding:.5rem .75rem .5rem 0;border-bottom:1px solid var(--rule)}
.cards thead th{font-size:.8125rem;line-height:1.3;color:var(--soft);vertical-align:bottom;border-bottom-color:var(--soft)}
.cards th small,.cards td small{display:block;line-height:1.35}
.cards td small{white-space:nowrap}.cards td.text small{white-space:normal}
.cards td.text{min-width:7rem;overflow-wrap:anywhere}.cards th bdi{display:block;min-width:8.5rem}
main{padding:2.5rem 2rem 4rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.35rem 1rem}dt{font-size:.9375rem}dd{margin:0}
}
@media screen and (min-width:52rem) and (max-width:70.99rem){.cards td small{white-space:normal}section{overflow-x:auto}}
@page{margin:16mm 14mm}
@media print{
:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#454d57;--rule:#c9ced4;--tint:#f4f4f4;--good:#0b6b3f;--bad:#a8231b;
--warn:#835500;--blue:#23588f;--band:#23588f26;--pale:#b9c4d0}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{font-size:9.5pt;line-height:1.4}main{max-width:none;padding:0}
h1{font-size:17pt}.lead{font-size:10.5pt}h2{font-size:12pt;margin-top:1.4rem;break-after:avoid}
table,dl{font-size:8.5pt}small,.note,caption,figcaption,.cards thead th,dt{font-size:7.8pt}
.cards th,.cards td{padding:.3rem .5rem .3rem 0}.cards td small{white-space:normal}.cards th bdi{min-width:6rem}
tr,figure,.alert,dl{break-inside:avoid}thead{display:table-header-group}
figure{max-width:11.5cm}.curves{grid-template-columns:1fr 1fr}
details::details-content{content-visibility:visible;block-size:auto}
pre,code{font-size:7.5pt}pre{background:none;padding:0;columns:2;column-gap:2rem}
p:has(+table){break-after:avoid}footer{margin-top:1rem;break-before:avoid}
}
)css";

}  // namespace preceptor::app
