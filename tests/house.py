"The order of the house: a module imports from its own folder and from those above it in this list."
import json

FOLDERS = {
    'top': 'What do all share?',
    'nets': 'What is a network, and what does it cost?',
    'timing': 'How long does it take?',
    'detect': 'How does a detector learn?',
    'study': 'Which one is better, and is it sure?',
    'laws': 'What follows for networks nobody trained?',
    'live': 'What happens if I move this?',
    'experiments': 'Where does each stored table come from?',
    'cli': 'The same from a terminal'}

ALIASES = ('anchor_loss', '__main__')  # old names in checkpoints, and `python -m`: they look down into the house, nothing imports them


def folder_of(module: str) -> str:
    "The folder of a dotted module name: 'nets.layer' lies in 'nets', 'core' at the top; the terminal is the last room."
    return 'cli' if module == 'cli' else module.rpartition('.')[0] or 'top'


def first_text(page) -> list:
    "The lines of a notebook's first text: its title, an empty line, its question, and what stands under them."
    cells = json.loads(page.read_text(encoding='utf-8'))['cells']
    return next(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown').split('\n')
