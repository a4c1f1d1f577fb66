// Draws what layerscale_nb.live.view describes, and moves the explorers and guesses of a page that has no kernel.
(function () {
  'use strict'
  const esc = t => String(t).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)
  const at = v => v.toFixed(1)
  const human = t => esc(t).replace(/\*\*(.+?)\*\*/g, '<b>$1</b>')

  // pictures
  const text = (x, y, t, anchor = 'middle', colour = 'currentColor') =>
    `<text x="${at(x)}" y="${at(y)}" text-anchor="${anchor}" fill="${colour}">${esc(t)}</text>`
  const svg = (w, h, label, ...parts) =>
    `<svg viewBox="0 0 ${w} ${h}" width="${w}" height="${h}" style="font:12px sans-serif;max-width:100%;height:auto" ` +
    `fill="currentColor" role="img" aria-label="${esc(label)}">${parts.join('')}</svg>`
  const toPixels = ([low, high], start, end, log) => {
    const f = log ? Math.log10 : Number
    return v => start + (end - start) * (f(v) - f(low)) / (f(high) - f(low))
  }
  const tip = t => t === undefined ? '' : `<title>${esc(t)}</title>`

  const name = (x, y, t, [dx, dy, anchor]) => text(x + dx, y + dy, t, anchor)
  const SIDES = {8: [0, -8, 'middle'], 6: [9, 4, 'start'], 4: [-9, 4, 'end'], 2: [0, 17, 'middle'],
    9: [6, -5, 'start'], 7: [-6, -5, 'end'], 3: [6, 14, 'start'], 1: [-6, 14, 'end']}

  function mark(m, px, py, [left, right, top, low]) {
    const points = m.ys.map((y, i) => [px(m.xs[i]), py(y)])
    if (m.kind === 'line' || m.kind === 'dashed') {
      const path = points.map(p => p.map(at).join(',')).join(' ')
      return `<polyline fill="none" stroke="${m.colour}" stroke-width="1.8"${m.kind === 'dashed' ? ' stroke-dasharray="5 4"' : ''} points="${path}">${tip(m.tips[0])}</polyline>`
    }
    if (m.kind === 'rule') return m.xs.map((v, i) => {
      const x = px(v), named = m.names.length > 0, end = x > (left + right) / 2
      return `<path d="M${at(x)} ${top - 12 * named}V${low}" stroke="${m.colour}" stroke-dasharray="4 3"/>` +
        (named ? text(end ? x - 3 : x + 3, top - 5, m.names[i], end ? 'end' : 'start') : '')
    }).join('')
    const look = m.kind === 'dot' ? `r="4" fill="${m.colour}"` : `r="6" fill="none" stroke="${m.colour}" stroke-width="2"`
    return points.map(([x, y], i) => `<circle cx="${at(x)}" cy="${at(y)}" ${look}>${tip(m.tips[i])}</circle>` +
      (m.names[i] ? name(x, y, m.names[i], SIDES[m.sides[i] || 8]) : '')).join('')
  }

  function endNames(marks, px, py) {
    const ends = marks.filter(m => m.kind === 'line' && m.names.length && m.xs.length)
      .map(m => [px(m.xs.at(-1)), py(m.ys.at(-1)), m]).sort((a, b) => a[1] - b[1])
    let last = -Infinity
    return ends.map(([x, y, m]) => {
      last = Math.max(y, last + 13)
      return `<path d="M${at(x + 4)} ${at(last)}h8" stroke="${m.colour}" stroke-width="3"/>` + text(x + 15, last + 4, m.names[0], 'start')
    }).join('')
  }

  function chart(c) {
    const [W, H] = c.size, names = c.marks.filter(m => m.kind === 'line' && m.names.length).map(m => 7 * m.names[0].length + 11)
    const tops = c.marks.some(m => m.kind === 'rule' && m.names.length)
    const box = [50, W - 14 - Math.max(0, ...names), 10 + 12 * tops, H - 36], [left, right, top, low] = box
    const px = toPixels(c.x, left, right, c.log.includes('x')), py = toPixels(c.y, low, top, c.log.includes('y'))
    const grid = (path, ...t) => `<path d="${path}" stroke="currentColor" stroke-opacity=".12"/>${text(...t)}`
    return svg(W, H, `${c.ylabel} against ${c.xlabel}`,
      ...c.yticks.map(([v, n]) => grid(`M${left} ${at(py(v))}H${right}`, left - 6, py(v) + 4, n, 'end')),
      ...c.xticks.map(([v, n]) => grid(`M${at(px(v))} ${top}V${low}`, px(v), low + 15, n)),
      `<path d="M${left} ${top}V${low}H${right}" fill="none" stroke="currentColor" stroke-opacity=".6"/>`,
      text((left + right) / 2, H - 5, c.xlabel),
      `<g transform="translate(12 ${(top + low) / 2}) rotate(-90)">${text(0, 0, c.ylabel)}</g>`,
      ...c.marks.map(m => mark(m, px, py, box)), endNames(c.marks, px, py))
  }

  function networks(p) {
    const extent = n => [n.slabs.reduce((t, s) => t + s[3] * s[4], 0),
      n.slabs.reduce((t, s) => t + s[4], 0) + 3 * new Set(n.slabs.map(s => s[0])).size]
    const sizes = p.nets.map(extent), gaps = Math.max(...sizes.map(s => s[1])), [W, H] = p.size
    const gap = Math.min(2, W * 0.4 / gaps), high = Math.max(...p.nets.flatMap(n => n.slabs.map(s => s[1])))
    const sx = (W - gaps * gap) / Math.max(...sizes.map(s => s[0])), sy = H / high
    const drawn = p.nets.map(n => `<div style="opacity:.75;margin-top:4px">${esc(n.label)}</div>${slabs(n, sx, sy, gap, W + 2)}`)
    return `<div style="max-width:${W + 2}px">${drawn.join('')}</div>`
  }
  const BLUES = ['#86bbdb', '#6baed6', '#4292c6', '#2171b5', '#1a5fa0', '#3a5fa5', '#5a5fa8']
  function slabs(n, sx, sy, gap, room) {
    const top = Math.max(...n.slabs.map(s => s[1])), out = []
    let x = 0, last = null
    for (const [part, h, w, c, many] of n.slabs) {
      if (last !== null && last !== part) x += 3 * gap
      last = part
      const tall = Math.max(2, h * sy), thick = Math.max(1, c * sx)
      const colour = BLUES[Math.min(BLUES.length - 1, Math.round(Math.log2(top / h)))]
      for (let i = 0; i < many; i++, x += gap + thick)
        out.push(`<rect x="${at(x + gap)}" y="${at((top * sy - tall) / 2)}" width="${at(thick)}" height="${at(tall)}" ` +
          `fill="${colour}">${tip(`${part}: ${c} channels, ${w}x${h}`)}</rect>`)
    }
    const [W, H] = [(x + 2).toFixed(0), (top * sy + 2).toFixed(0)]
    return `<svg viewBox="0 0 ${W} ${H}" style="width:${(100 * (x + 2) / room).toFixed(1)}%;height:auto;display:block" role="img" ` +
      `aria-label="${esc(n.name)}">${out.join('')}</svg>`
  }

  function bars(p) {
    const [W, H] = p.size, tall = 34, left = 130, told = p.rows.map(r => 7 * r[3].length + 12)
    const x = toPixels([0, p.most], left, W - Math.max(50, ...told)), bottom = 22 + tall * p.rows.length
    const rows = p.rows.map(([name, note, pieces, told], i) => {
      const y = 22 + tall * i
      let start = 0
      const drawn = pieces.map(([v, colour]) => {
        const from = x(start)
        return `<rect x="${at(from)}" y="${y}" width="${at(x(start += v) - from)}" height="24" fill="${colour}"/>`
      }).join('')
      return text(left - 8, y + 10, name, 'end') + text(left - 8, y + 24, note, 'end') + drawn +
        text(x(start) + 5, y + 16, told, 'start')
    })
    const rule = p.rule ? `<line x1="${at(x(p.rule[0]))}" x2="${at(x(p.rule[0]))}" y1="16" y2="${bottom}" ` +
      `stroke="currentColor"/>${text(x(p.rule[0]), 11, p.rule[1])}` : ''
    return svg(W, Math.max(H, bottom + 6), p.label, ...rows, rule)
  }

  const KEEP = {th: ';vertical-align:bottom', td: ';white-space:nowrap'}  // a head may break, a value may not
  const cells = (tag, row) => row.map((v, i) => `<${tag} style="text-align:${i ? 'right' : 'left'};padding:1px 6px${KEEP[tag]}">${human(v)}</${tag}>`).join('')
  const sentence = v => Array.isArray(v) ? `<a style="color:inherit" href="${esc(v[1])}">${human(v[0])}</a>` : human(v)
  const sentences = (tag, row) => row.map(v => `<${tag} style="text-align:left;vertical-align:top;padding:4px 8px;min-width:4em;overflow-wrap:anywhere">${sentence(v)}</${tag}>`).join('')
  const DRAW = {
    chart, networks, bars,
    words: p => human(p.text),
    key: p => p.entries.map(([colour, t]) => `<span style="white-space:nowrap"><span style="color:${colour}">■</span> ${human(t)}</span>`).join(' &nbsp; '),
    table: p => `<table style="border-collapse:collapse"><tr>${cells('th', p.head)}</tr>` +
      p.rows.map(r => `<tr>${cells('td', r)}</tr>`).join('') + '</table>',
    prose: p => `<table style="border-collapse:collapse"><tr>${sentences('th', p.head)}</tr>` +
      p.rows.filter(r => r).map(r => `<tr style="border-top:1px solid rgba(128,128,128,.4)">${sentences('td', r)}</tr>`).join('') + '</table>',
    boxes: p => svg(...p.size, p.label, ...p.rects.map(([x, y, w, h, colour]) =>
      `<rect x="${at(x)}" y="${at(y)}" width="${at(w)}" height="${at(h)}" fill="${colour}"/>`), ...p.texts.map(t => text(...t))),
    photo: p => svg(...p.size, p.label, `<image href="${esc(p.src)}" width="100%" height="100%"/>`, ...p.rects.map(([x, y, w, h, colour, name]) =>
      `<rect x="${at(x)}" y="${at(y)}" width="${at(w)}" height="${at(h)}" fill="transparent" stroke="${colour}" stroke-width="1.5">${tip(name)}</rect>`))
  }
  const draw = view => view.map(p =>
    `<div style="max-width:100%;overflow-x:auto${p.kind === 'words' || p.kind === 'networks' ? ';flex-basis:100%' : ''}">` +
    `${DRAW[p.kind](p)}</div>`).join('')

  // data: what all states share once, what differs in lists (layerscale_nb.live.view.pack)
  function unpack(node, i) {
    if ('all' in node) return node.all
    if ('each' in node) return node.each[node.at ? node.at[i] : i]
    if ('list' in node) return node.list.map(n => unpack(n, i))
    return Object.fromEntries(Object.entries(node.dict).map(([k, n]) => [k, unpack(n, i)]))
  }

  const inUrl = () => new URLSearchParams(location.hash.slice(1))
  function remember(id, picked) {
    const all = inUrl()
    all.set(id, picked.join('~'))
    history.replaceState(null, '', '#' + all)
  }

  function explorer(box) {
    const data = JSON.parse(box.querySelector('script').textContent), id = box.id
    const out = box.querySelector('.layerscale-view'), row = document.createElement('div')
    row.className = 'layerscale-controls'
    let picked = inUrl().get(id)?.split('~') || data.start
    const inputs = data.choices.map(({label, menu}) => {
      const l = document.createElement('label'), e = document.createElement(menu ? 'select' : 'input'), told = document.createElement('output')
      if (!menu) e.type = 'range'
      l.append(label, ' ', e, ' ', menu ? '' : told)
      row.append(l)
      return {e, told, menu}
    })
    function settle() {
      let level = data.tree
      picked = inputs.map(({e, told, menu}, i) => {
        const names = level.map(([n]) => n)
        let k = names.indexOf(picked[i])
        if (k < 0) k = nearest(names, picked[i])
        if (menu) { e.innerHTML = names.map(n => `<option>${esc(n)}</option>`).join(''); e.selectedIndex = k }
        else { e.max = names.length - 1; e.value = k; told.textContent = names[k]; e.disabled = names.length < 2 }
        e.names = names
        level = level[k][1]
        return names[k]
      })
      out.innerHTML = draw(unpack(data.states, level))
    }
    function nearest(names, wish) {
      const gaps = names.map(n => Math.abs(Number(n) - Number(wish)))
      return gaps.some(isNaN) ? 0 : gaps.indexOf(Math.min(...gaps))
    }
    inputs.forEach(({e, menu}, i) => e.addEventListener('input', () => {
      picked[i] = e.names[menu ? e.selectedIndex : e.value]
      settle()
      remember(id, picked)
    }))
    box.insertBefore(row, out)
    box.querySelector('.layerscale-still')?.remove()
    settle()
  }

  // guesses: {said, and once the page has shown the answer true and about}, kept by the browser; layerscale_nb.live.progress has the same rules
  function kept(id) {
    try {
      const g = JSON.parse(localStorage.getItem('layerscale-' + id))
      return g && ['number', 'string'].includes(typeof g.said) ? g : null
    } catch (e) { return null }
  }
  function keep(id, g) { try { localStorage.setItem('layerscale-' + id, JSON.stringify(g)) } catch (e) { } }

  function miss(g) {
    if (typeof g.said !== 'number' || typeof g.true !== 'number') return null
    const f = g.said / g.true
    return g.said === g.true || g.true && f >= 0.5 && f <= 2 ? 0 : g.said > g.true ? 1 : -1
  }
  function words(g) {
    const plain = v => typeof v === 'number' ? Number(v.toPrecision(3)) : v
    if (!('true' in g)) return `you said ${plain(g.said)}`
    const good = {1: 'too high', 0: 'within a factor of 2', '-1': 'too low', null: g.said === g.true ? 'right' : 'not right'}
    return `you said ${plain(g.said)}, it is ${plain(g.true)}: ${good[miss(g)]}`
  }
  function calibration(guesses) {
    const numbers = guesses.filter(g => miss(g) !== null), others = guesses.filter(g => miss(g) === null), said = []
    if (numbers.length) said.push(`within a factor of 2 on ${numbers.filter(g => miss(g) === 0).length} of ${numbers.length}`)
    const sum = a => numbers.reduce((t, g) => t + (g.about === a && miss(g)), 0)
    for (const [sign, word] of [[1, 'overrate'], [-1, 'underrate']]) {
      const about = [...new Set(numbers.map(g => g.about))].filter(a => a && sign * sum(a) > 0).sort()
      if (about.length) said.push(`you ${word} ${about.join(', ')}`)
    }
    if (others.length) said.push(`right on ${others.filter(g => g.said === g.true).length} of ${others.length} questions in words`)
    return said.join('; ') || 'no guess yet'
  }

  function progress(box) {
    const {lessons, table} = JSON.parse(box.querySelector('script').textContent), out = box.querySelector('.layerscale-view')
    const own = lessons.map(l => l.guesses.map(kept).filter(g => g)), all = own.flat()
    if (all.length) out.innerHTML = draw([{kind: 'words', text: `**Your guesses**: ${calibration(all.filter(g => 'true' in g))}.`}])
    const rows = lessons.map((l, i) => [[l.name, l.page], own[i].map(words).join('; ') || '–'])
    if (table) out.innerHTML += draw([{kind: 'prose', head: ['lesson', 'your guesses'], rows}])
  }

  // the answer to a guess: from the cell that judges it to the end of its section
  function answer(judged) {
    const parts = []
    for (let e = judged?.closest('.cell') ?? judged; e && e.tagName !== 'SECTION'; e = e.nextElementSibling) parts.push(e)
    return parts
  }

  function guess(form) {
    const told = form.querySelector('output'), field = form.querySelector('input,select'), button = form.querySelector('button')
    const judged = document.querySelector(`[data-judge="${form.id}"]`)
    const locked = [...document.querySelectorAll(`[data-guess="${form.id}"]`), ...answer(judged)]
    function reveal(g) {
      locked.forEach(e => { e.hidden = false })
      document.querySelectorAll(`[data-until="${form.id}"]`).forEach(e => { e.hidden = true })
      if (!g) return
      if (judged) Object.assign(g, {true: JSON.parse(judged.dataset.true), about: judged.dataset.about})
      keep(form.id, g)
      field.value = g.said
      field.disabled = button.disabled = true  // the first guess counts
      told.textContent = 'Your guess: ' + g.said
      if (judged) judged.textContent = words(g)
    }
    locked.forEach(e => { e.hidden = true })
    const shared = [...inUrl().keys()].some(k => locked.some(e => e.querySelector('#' + CSS.escape(k))))
    if (kept(form.id) || shared) reveal(kept(form.id))
    form.hidden = false
    form.addEventListener('submit', e => {
      e.preventDefault()
      if (field.value) reveal({said: field.type === 'number' ? Number(field.value) : field.value})
    })
  }

  document.addEventListener('DOMContentLoaded', () => {
    document.querySelectorAll('.layerscale-explorer').forEach(e => e.querySelector('script') && explorer(e))
    document.querySelectorAll('form.layerscale-guess').forEach(guess)
    document.querySelectorAll('.layerscale-progress').forEach(progress)
  })
  window.layerscale = {draw, unpack, calibration, words}
})()
