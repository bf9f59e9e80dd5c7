"""How the report looks, and the sorting of its tables."""

STYLE = """
:root{--ink:#222;--soft:#555b63;--line:#e3e6ea}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;font:15px/1.5 system-ui,sans-serif}
main{max-width:1500px;margin:0 auto;padding:16px 20px 60px}
h1{font-size:26px;margin:12px 0 4px;overflow-wrap:anywhere}
h2{font-size:19px;margin:34px 0 4px}
p{color:var(--soft);margin:4px 0 12px;max-width:90ch}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;color:var(--soft);margin:8px 0}
dd{margin:0;overflow-wrap:anywhere}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:18px 0}
.cards div{border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:150px}
.cards b{display:block;font-size:22px}
.cards span{color:var(--soft);font-size:13px;overflow-wrap:anywhere}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13px}
th,td{padding:4px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{cursor:pointer;background:#f6f7f9;position:sticky;top:0}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff;z-index:1}
th:first-child{background:#f6f7f9}
code{font-size:12px}
small{color:var(--soft)}
td svg{display:block;transition:transform .1s;background:#fff}
td svg:hover{transform:scale(2.6);position:relative;z-index:2;outline:1px solid var(--line)}
img{max-width:100%;height:auto}
@media(max-width:600px){main{padding:8px 12px 40px}
th:first-child,td:first-child{min-width:34vw;white-space:normal;padding-left:4px}
.cards div{flex:1 1 40%;min-width:0}
.wide img{max-width:none;height:300px}}
"""

SCRIPT = """
for (const head of document.querySelectorAll('th')) head.onclick = () => {
  const body = head.closest('table').tBodies[0], i = head.cellIndex;
  const up = head.dataset.up = head.dataset.up === '1' ? '0' : '1';
  const key = row => {
    const text = row.cells[i].textContent.replaceAll(',', ''), number = parseFloat(text);
    return isNaN(number) ? text : number;
  };
  const order = (a, b) => typeof a === typeof b ? (a > b) - (a < b) : isNaN(a) ? 1 : -1;
  const rows = [...body.rows].sort((a, b) => order(key(a), key(b)) * (up === '1' ? 1 : -1));
  body.append(...rows);
};
"""
