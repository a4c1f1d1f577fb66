"""Everything the build needs comes from settings.ini."""
import re
import shutil
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).resolve().parent
cfg = ConfigParser(delimiters=['='], interpolation=None)
cfg.read(here/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
lib, git, site = cfg['lib_name'], cfg['git_url'], cfg['doc_host'] + cfg['doc_baseurl']


class WithStored(build_py):
    "Results, lessons, their pictures and the configs go into the package, where `core.stored` finds them."
    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False): return  # a clone's own files are found first
        for name, source in dict(results='nbs/results', lessons='nbs/lessons', images='nbs/images', configs='configs').items():
            shutil.copytree(here/source, Path(self.build_lib)/lib/'stored'/name, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns('.*', 'runs', '__pycache__', 'layerscale-progress.json'))


readme = re.sub(r'\]\((?!https?:|#)', f']({git}/blob/{cfg["branch"]}/', (here/'README.md').read_text(encoding='utf-8'))
readme = re.sub(rf'(!\[[^]]*\]\({re.escape(git)})/blob/', r'\1/raw/', readme)

setup(
    name=cfg['pip_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], license='Apache-2.0', license_files=['LICENSE'], url=git,
    project_urls={'Documentation': site, 'Source': git, 'Changelog': f'{git}/blob/{cfg["branch"]}/CHANGELOG.md'},
    long_description=readme, long_description_content_type='text/markdown',
    packages=find_packages(include=[lib, lib+'.*']), cmdclass={'build_py': WithStored},
    python_requires='>='+cfg['min_python'], install_requires=cfg['requirements'].split(),
    extras_require={k: cfg[f'{k}_requirements'].split() for k in ('dev', 'backbones', 'ray')},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f'{lib}={lib}._modidx:d']},
    classifiers=['Development Status :: 3 - Alpha', 'Framework :: Jupyter', 'Intended Audience :: Education',
                 'Intended Audience :: Science/Research', 'Operating System :: OS Independent',
                 *(f'Programming Language :: Python :: 3.{n}' for n in (10, 11, 12, 13)),
                 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    zip_safe=False)
