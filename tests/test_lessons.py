"Each lesson asks before it shows, exports nothing, is short, and runs as a single file in an empty folder."
import json
import re
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
LESSONS = sorted((root/'nbs'/'lessons').glob('*.ipynb'))


def cells(p): return [(c['cell_type'], ''.join(c['source'])) for c in json.loads(p.read_text(encoding='utf-8'))['cells']]


def place(p, pattern):
    "The number of the first code cell that holds the pattern."
    return next((i for i, (kind, s) in enumerate(cells(p)) if kind == 'code' and re.search(pattern, s)), 10**6)


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_asks_first(lesson):
    found = cells(lesson)
    assert len(found) <= 70 and not [s for _, s in found if '#| export' in s or '#| default_exp' in s]
    assert re.match(r'# \d\d .+\n\n> .+\?', found[0][1]), 'number, title and question'
    assert 'colab.research.google.com' in found[0][1] and lesson.name in found[0][1], 'a link that opens it in Colab'
    assert place(lesson, r'= Guess\(') <= 8 and place(lesson, r'guess\w*\.then\(') <= 12
    words = sum(len(s.split()) for kind, s in found if kind == 'markdown')
    assert words <= 2500, words


@pytest.mark.parametrize('lesson', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_agrees_with_the_library_and_links_to_it(lesson):
    text = '\n'.join(s for _, s in cells(lesson))
    assert re.search(r'\b(assert|test_eq|test_close)\b', text) and re.search(r'\]\(\.\./\w+/\w+\.ipynb\)', text)
    assert 'Takeaways' in text and 'Exercise' in text
