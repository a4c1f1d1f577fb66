"README.md and its picture from nbs/readme.ipynb and the stored results; `--check` only compares the text."
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from house import ALIASES, FOLDERS, first_text, folder_of

root = Path(__file__).resolve().parent.parent


def pages() -> str:
    "The list of lessons and, folder by folder, of the modules' pages with their questions."
    nbs, out = root/'nbs', ['**lessons**', '']
    out += [f'- [{first_text(p)[0][2:]}](lessons/{p.name}): {first_text(p)[2][2:]}' for p in sorted((nbs/'lessons').glob('*.ipynb'))]
    exported = {}
    for p in sorted(nbs.rglob('*.ipynb')):
        if m := re.search(r'#\| default_exp ([\w.]+)', p.read_text(encoding='utf-8')): exported[m[1]] = p
    for folder, question in FOLDERS.items():
        mine = [m for m in exported if folder_of(m) == folder and m not in ALIASES]
        if mine: out += ['', f'**{folder}**: {question}', '']
        out += [f'- [{m}]({exported[m].relative_to(nbs)}): {first_text(exported[m])[2][2:]}' for m in mine]
    return '\n'.join(out)


def readme() -> str:
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(root/'nbs'/'readme.ipynb', as_version=4)
    nb.cells = [c for c in nb.cells if not c.source.startswith('#| hide')]
    text = MarkdownExporter().from_notebook_node(nb)[0].replace('PAGES', pages())
    return re.sub(r'\]\((images/|[\w/]+\.ipynb)', r'](nbs/\1', text).strip() + '\n'


def picture(path):
    "Three figures of the stored KITTI study, side by side."
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from layerscale_nb.study.report import differences, plot_differences, plot_frontier, plot_scaling, read_results
    df = read_results(root/'nbs'/'results'/'kitti_cyclist_width_depth.csv')
    fig, axs = plt.subplots(1, 3, figsize=(13, 3.4), dpi=90, layout='constrained', width_ratios=(1.15, 1, 1))
    plot_differences(differences(df), axs[0]); plot_scaling(df, ax=axs[1]); plot_frontier(df, ax=axs[2])
    for ax, title in zip(axs, ('Is the difference real?', 'Width or depth?', 'What is it worth?')): ax.set_title(title, fontsize=11, loc='left')
    fig.savefig(path)


if __name__ == '__main__':
    if '--check' in sys.argv: sys.exit((root/'README.md').read_text() != readme())
    picture(root/'nbs'/'images'/'report.png')
    (root/'README.md').write_text(readme())
