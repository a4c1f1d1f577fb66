// What a person would notice in this element: words and curves too faint on their background, things that are cut or
// lie over their neighbours, broken pictures. Returns a list of sentences; areas are bars, slabs and squares of legends.
root => {
  const NEED = {text: 4.5, line: 3, area: 2}
  const ctx = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
  const rgba = colour => {
    ctx.clearRect(0, 0, 1, 1)
    ctx.fillStyle = colour
    ctx.fillRect(0, 0, 1, 1)
    const [r, g, b, a] = ctx.getImageData(0, 0, 1, 1).data
    return [r, g, b, a / 255]
  }
  const over = ([r, g, b, a], under) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a))
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
  }
  const once = f => { const known = new Map(); return e => known.get(e) ?? known.set(e, f(e)).get(e) }
  const paper = once(e => {
    const c = rgba(getComputedStyle(e).backgroundColor)
    return c[3] > 0.99 ? c.slice(0, 3) : e.parentElement ? over(c, paper(e.parentElement)) : over(c, [255, 255, 255])
  })
  const opacity = once(e => e ? getComputedStyle(e).opacity * opacity(e.parentElement) : 1)
  const out = new Set()
  function check(kind, e, colour, what) {
    const under = paper(e), [r, g, b, a] = rgba(colour)
    const [x, y] = [light(over([r, g, b, a * opacity(e)], under)), light(under)]
    const ratio = Math.max(x, y) / Math.min(x, y)
    if (ratio < NEED[kind]) out.add(`${kind} at ${ratio.toFixed(2)}: ${what.slice(0, 100)}`)
  }
  const controls = 'title,button,select,script,style'  // what Jupyter draws
  const words = document.createTreeWalker(root, NodeFilter.SHOW_TEXT)
  while (words.nextNode()) {
    const e = words.currentNode.parentElement, t = words.currentNode.data.trim(), s = getComputedStyle(e)
    if (t && e.getClientRects().length && !e.closest(controls)) check(t === '■' ? 'area' : 'text', e, e.closest('svg') ? s.fill : s.color, t)
  }
  for (const e of root.querySelectorAll('svg[aria-label] :is(polyline, path, line, circle, rect)')) {
    const s = getComputedStyle(e), filled = e.tagName === 'rect' || s.stroke === 'none'
    if (s.strokeOpacity > 0.2) check(e.tagName === 'rect' ? 'area' : 'line', e, filled ? s.fill : s.stroke, e.outerHTML)  // a grid is meant to be faint
  }
  const rolls = once(e => e !== root && (/auto|scroll/.test(getComputedStyle(e).overflowX) || rolls(e.parentElement)))
  const edge = root.getBoundingClientRect().right + 1
  for (const e of root.querySelectorAll('div, table, img, svg')) {
    if (e.closest('button, .widget-readout, .slider-container, .noUi-target')) continue
    const wide = e.clientWidth && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline'
    if (wide) out.add(`${e.scrollWidth} pixels wide in ${e.clientWidth}: ${e.className} ${(e.textContent || '').slice(0, 60)}`)
    if (!rolls(e) && e.getBoundingClientRect().right > edge) out.add(`cut at the right: ${e.tagName} ${(e.textContent || '').slice(0, 60)}`)
    if (e.tagName === 'IMG' && !e.naturalWidth) out.add(`a broken picture: ${e.alt}`)
  }
  return [...out]
}
