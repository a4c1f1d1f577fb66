"""What is installed, under which licences, and how far it is from `.ci/lock.txt`, the versions that CI had.

    python tests/audit.py          a table of all packages; then what is not permissive, and what differs from the lock
    python tests/audit.py --brief  without the table
    python tests/audit.py --lock   ask pip for today's versions and write `.ci/lock.txt`; nothing is installed

Exit status 1: a licence is neither permissive nor among those that `KNOWN` names."""
import json
import platform
import re
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import distributions
from pathlib import Path

root = Path(__file__).resolve().parent.parent
LOCK = root/'.ci'/'lock.txt'
OURS = 'layerscale-nb'

KINDS = {  # kind -> words of its licences; the first that fits a part of a licence's text
    'copyleft': r'AGPL|Affero|(?<!L)GPL|(?<!Lesser )General Public',
    'weak copyleft': r'LGPL|Lesser|MPL|Mozilla|EPL|Eclipse|CDDL|EUPL',
    'proprietary': r'Proprietary|Commercial',
    'permissive': r'MIT|BSD|Apache|\bISC|PSF|Python Software Foundation|HPND|Zlib|CC0|Unlicen|BSL-1|LLVM-exception|Kiwi'}

KNOWN = {  # packages that are not permissive -> what that means for who uses them
    r'ultralytics(-\w+)?': 'AGPL-3.0: who passes on a program with it, or lets others use one over a network, owes them the whole source',
    r'(nvidia|cuda|cudnn)-[\w-]+': "NVIDIA's own terms: may be used and, in parts, passed on; comes with torch on Linux",
    'certifi|fqdn|tqdm|hf-xet|pathspec|orjson': 'MPL-2.0: changes to its own files are to be published, nothing else'}


def canonical(name: str) -> str:
    "A package's name as pip compares it."
    return re.sub(r'[-_.]+', '-', name).lower()


def licence_of(meta: dict) -> str:
    "The licence in a package's metadata (as JSON), one line; '' if it names none."
    classified = [c.split(' :: ')[-1] for c in meta.get('classifier', []) if c.startswith('License ::')]
    written = (meta.get('license') or '').strip()
    short = written if len(written) < 60 and written.upper() != 'UNKNOWN' else ''
    said = [meta.get('license_expression'), short, ', '.join(classified), written.split('\n')[0]]
    return ' '.join(next(filter(None, said), '').split())


def kind_of(licence: str) -> str:
    "'permissive', 'weak copyleft', 'proprietary', 'copyleft' or 'unknown': of several that hold together the strictest, of a choice the mildest."
    order = ['permissive', 'weak copyleft', 'proprietary', 'copyleft', 'unknown']
    one = lambda text: next((k for k, words in KINDS.items() if re.search(words, text, re.I)), 'unknown')
    every = lambda text: max((one(part) for part in re.split(r'\bAND\b|\bWITH\b', text)), key=order.index)
    return min((every(choice) for choice in re.split(r'\bOR\b', licence)), key=order.index)


def known(name: str) -> str:
    "What is said of a package that is not permissive; '' if nothing is."
    return next((said for pattern, said in KNOWN.items() if re.fullmatch(pattern, name)), '')


def not_permissive(have: dict) -> dict:
    "What is to be said -> names of the packages, of all whose licence is not permissive."
    said = {}
    for name, (_, licence) in have.items():
        if kind_of(licence) == 'permissive': continue
        unknown = f'NOT KNOWN: {licence or "no licence is named"}. Read it, then name the package in tests/audit.py.'
        said.setdefault(known(name) or unknown, []).append(name)
    return said


def installed() -> dict:
    "Name -> (version, licence) of all that this Python finds, but for the package itself."
    found = {canonical(d.metadata['Name']): (d.version, licence_of(d.metadata.json)) for d in distributions() if d.metadata['Name']}
    return {k: v for k, v in sorted(found.items()) if k != OURS}


def locked(text: str) -> dict:
    "Name -> (version, licence) of the lines of a lock."
    rows = re.findall(r'^([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}(?:  # (.*))?$', text, re.M)
    return {name: (version, licence) for name, version, licence in rows}


def lock_text(report: dict) -> str:
    "The lines of a lock from a report of pip: each package with its version, the fingerprint of its file, and its licence."
    rows = {}
    for found in report['install']:
        meta, name = found['metadata'], canonical(found['metadata']['name'])
        if name == OURS: continue
        rows[name] = f'{name}=={meta["version"]} --hash=sha256:{found["download_info"]["archive_info"]["hashes"]["sha256"]}  # {licence_of(meta)}'
    head = f'# What CI installs: Python {platform.python_version()}, {platform.system()} {platform.machine()}, {date.today()}. A record, not a way to install.\n# `make lock` writes it, `make audit` compares it with what is installed.\n'
    return head + '\n'.join(rows[k] for k in sorted(rows)) + '\n'


def write_lock():
    "Ask pip which files it would install, and write the lock."
    with tempfile.TemporaryDirectory() as tmp:
        how = ['install', '--dry-run', '--ignore-installed', '--quiet', '--no-build-isolation', '--report', f'{tmp}/report.json']
        subprocess.run([sys.executable, '-m', 'pip', *how, f'{root}[dev,backbones,ray]'], check=True)
        LOCK.write_text(lock_text(json.loads(Path(tmp, 'report.json').read_text(encoding='utf-8'))), encoding='utf-8')


def differences(have: dict, lock: dict) -> list:
    "Sentences: what has another version than in the lock, and what is not in it. What is only in the lock may belong to another system."
    other = [f'{k} {have[k][0]}, in the lock {v}' for k, (v, _) in lock.items() if k in have and have[k][0] != v]
    return other + [f'{k} {v}, not in the lock' for k, (v, _) in have.items() if k not in lock]


def main(words) -> int:
    if '--lock' in words: return write_lock() or 0
    have, lock = installed(), locked(LOCK.read_text(encoding='utf-8'))
    kinds = {k: kind_of(licence) for k, (_, licence) in have.items()}
    if '--brief' not in words:
        for k, (version, licence) in have.items(): print(f'{k:<28} {version:<20} {kinds[k]:<14} {licence[:70]}')
        print()
    count = {kind: list(kinds.values()).count(kind) for kind in dict.fromkeys(kinds.values())}
    print(f'{len(have)} packages: ' + ', '.join(f'{n} {kind}' for kind, n in sorted(count.items(), key=lambda x: -x[1])))
    for said, names in not_permissive(have).items(): print(f'  {", ".join(names)}\n    {said}')
    differ = differences(have, lock)
    print(f'{len(differ)} differences from {LOCK.relative_to(root)}' + ''.join(f'\n  {d}' for d in differ))
    return int(any(kind != 'permissive' and not known(k) for k, kind in kinds.items()))


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
