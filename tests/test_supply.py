"Requirements, the lock, and the licences of what is installed."
import configparser
import json
import re

import audit
import pytest
from packaging.requirements import Requirement


def ranges(repo):
    "All requirements of settings.ini."
    cfg = configparser.ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(repo/'settings.ini')
    return [Requirement(r) for k, v in cfg['DEFAULT'].items() if k.endswith('requirements') for r in v.split()]


def test_each_requirement_is_a_range_that_holds_the_lock(repo):
    "With an upper end, and the locked version inside; torch from 2.4 on."
    lock, asked = audit.locked(audit.LOCK.read_text()), ranges(repo)
    assert len(asked) > 30
    for r in asked:
        assert any(s.operator in ('<', '==') for s in r.specifier), f'{r} has no upper end'
        assert r.specifier.contains(lock[audit.canonical(r.name)][0]), f'{r}: the lock has {lock[audit.canonical(r.name)][0]}'
    assert next(r for r in asked if r.name == 'torch').specifier.contains('2.4.0')


def test_every_line_of_the_lock_has_a_fingerprint(repo):
    text = audit.LOCK.read_text()
    lines = [l for l in text.splitlines() if not l.startswith('#')]
    assert len(audit.locked(text)) == len(lines) > 100 and lines == sorted(lines, key=lambda l: l.partition('==')[0])
    assert 'ultralytics' in audit.locked(text) and audit.OURS not in audit.locked(text)


def test_all_licences_of_the_lock_are_known():
    said = audit.not_permissive(audit.locked(audit.LOCK.read_text()))
    assert not [k for k in said if 'NOT KNOWN' in k]
    assert next(names for k, names in said.items() if k.startswith('AGPL-3.0')) == ['ultralytics', 'ultralytics-platform', 'ultralytics-thop']


@pytest.mark.parametrize('licence, kind', [
    ('MIT', 'permissive'), ('BSD-3-Clause AND MIT', 'permissive'), ('Apache-2.0 WITH LLVM-exception', 'permissive'), ('AGPL-3.0', 'copyleft'),
    ('GNU Affero General Public License v3 or later (AGPLv3+)', 'copyleft'), ('GPL-2.0-or-later OR MIT', 'permissive'), ('MIT AND GPL-3.0', 'copyleft'),
    ('LGPL-3.0', 'weak copyleft'), ('GNU Lesser General Public License v3 (LGPLv3)', 'weak copyleft'), ('MPL-2.0 AND MIT', 'weak copyleft'),
    ('LicenseRef-NVIDIA-Proprietary', 'proprietary'), ('', 'unknown'), ('see the file', 'unknown')])
def test_kinds_of_licences(licence, kind): assert audit.kind_of(licence) == kind


def test_licences_from_metadata():
    "The expression first, then a short text, then the classifiers, then the first line of a long text."
    long = 'BSD 3-Clause License\n\nCopyright ' + 'x'*100
    said = [dict(license_expression='MIT', license='x'), dict(license='ISC license'), dict(license='UNKNOWN', classifier=['License :: OSI Approved :: MIT License']), dict(license=long), {}]
    assert [audit.licence_of(m) for m in said] == ['MIT', 'ISC license', 'MIT License', 'BSD 3-Clause License', '']


def test_the_audit_says_what_is_new(tmp_path, monkeypatch, capsys):
    "Another version, a package that is not in the lock, and a licence that nobody has read: status 1 for the last only."
    report = dict(install=[dict(metadata=dict(name=n, version='1.0', license_expression='MIT'), download_info=dict(archive_info=dict(hashes=dict(sha256='0'*64)))) for n in ('B_b', 'a', 'layerscale-nb')])
    monkeypatch.setattr(audit, 'root', tmp_path)
    monkeypatch.setattr(audit, 'LOCK', tmp_path/'lock.txt')
    audit.LOCK.write_text(audit.lock_text(json.loads(json.dumps(report))))
    assert audit.locked(audit.LOCK.read_text()) == {'a': ('1.0', 'MIT'), 'b-b': ('1.0', 'MIT')}
    have = {'a': ('1.1', 'MIT'), 'ultralytics': ('8', 'AGPL-3.0')}
    monkeypatch.setattr(audit, 'installed', lambda: have)
    assert audit.main([]) == 0
    out = capsys.readouterr().out
    assert 'a 1.1, in the lock 1.0' in out and 'ultralytics 8, not in the lock' in out and re.search(r'ultralytics\n +AGPL-3\.0: ', out)
    have['c'] = ('1', 'GPL-3.0')
    assert audit.main(['--brief']) == 1 and 'NOT KNOWN: GPL-3.0' in capsys.readouterr().out
