"""Run each lesson alone, as a single file in an empty folder, and store how many seconds it takes in nbs/results/lessons.csv.

    python tests/bench/lessons.py           all lessons (about ten minutes)
    python tests/bench/lessons.py 14 15     only these; the other rows stay"""
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from layerscale_nb.core import provenance, stored
from layerscale_nb.lessons import lesson_rows, write_lessons
from layerscale_nb.table import Table


def seconds(name, timeout=900):
    "How long a lesson takes from the start of its kernel to its last cell."
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        write_lessons(work/'all')
        (work/'alone').mkdir()
        shutil.move(work/'all'/name, work/'alone')
        nb, start = nbformat.read(work/'alone'/name, as_version=4), time.perf_counter()
        NotebookClient(nb, timeout=timeout, kernel_name='python3', resources=dict(metadata=dict(path=str(work/'alone')))).execute()
        return time.perf_counter() - start


def main(numbers):
    table = Table(stored('results')/'lessons.csv', ('file',))
    for name in [r['file'] for r in lesson_rows() if not numbers or r['file'][:2] in numbers]:
        took = seconds(name)
        table.add(dict(file=name, seconds=round(took, 1)) | provenance('python tests/bench/lessons.py'))
        print(f'{name:<30}{took:7.1f} s', flush=True)


if __name__ == '__main__': main(sys.argv[1:])
