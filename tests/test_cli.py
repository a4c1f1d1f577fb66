"The command from outside: help with examples, one sentence for bad input, no traceback."
import os
import subprocess
import sys
from pathlib import Path

import pytest
from house import ALIASES
from test_layout import modules

from layerscale_nb.cli import command_of, main, study_of

COMMANDS = ['study', 'train', 'data', 'report', 'repro', 'bench', 'count', 'scale', 'time', 'profile']

root = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('words', [[], *[[c] for c in COMMANDS]])
def test_help_has_an_example(words, capsys):
    with pytest.raises(SystemExit) as e: main([*words, '--help'])
    text = capsys.readouterr().out
    assert e.value.code == 0 and 'examples:\n  layerscale ' in text


@pytest.mark.parametrize('words, sentence', [
    (['study', '--data', 'no/such'], 'no such folder or file'),
    (['study', '--imgsz', '320x100'], 'the next one is 128'),
    (['study', '--imgsz', 'big'], 'write it as WIDTHxHEIGHT'),
    (['study', '--depths', '0'], 'depth is'),
    (['study', '--widths', 'nan'], 'width is'),
    (['study', '--depths', '0.33', '0.35'], 'realise the same network'),
    (['study', '--epochs', '2.5'], 'whole number'),
    (['study', '--device', 'cuda:77'], 'cuda:77'),
    (['study', '--variants', 'depth_03'], "Did you mean 'depth_033'?"),
    (['study', '--base', '1', 'x', '512'], 'base is'),
    (['train', 'no.yaml'], 'no such file'),
    (['report', 'no/such'], 'no results yet'),
    (['data', '--sheet', 'no/such/dir/x.png'], 'cannot write'),
])
def test_bad_input(words, sentence, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.startswith('layerscale: ') and err.count('\n') == 1


def test_config_with_unknown_key(tmp_path, capsys):
    (tmp_path/'c.yaml').write_text('variant: a\nwidht: 0.5\n')
    assert main(['train', str(tmp_path/'c.yaml')]) == 2
    assert "unknown key 'widht'. Did you mean 'width'?" in capsys.readouterr().err


def test_a_config_sets_any_number_of_the_recipe(tmp_path):
    from dataclasses import asdict
    from layerscale_nb.study.variants import load_config
    from layerscale_nb.detect.recipe import Recipe
    numbers = {k: v for k, v in asdict(Recipe()).items() if isinstance(v, float)}
    assert 'muon' in numbers and len(numbers) > 8
    (tmp_path/'c.yaml').write_text('\n'.join(f'{k}: {v/2}' for k, v in numbers.items()))
    assert all(getattr(load_config(tmp_path/'c.yaml').recipe, k) == v/2 for k, v in numbers.items())


def test_a_config_may_say_off(tmp_path):
    from layerscale_nb.study.variants import load_config
    (tmp_path/'c.yaml').write_text('amp: off\n')
    assert load_config(tmp_path/'c.yaml').recipe.amp == 'off'


@pytest.mark.parametrize('text, sentence', [('data: 5', 'data is 5; write it as text'), ('preset: [a]', 'write it as text'), ('depth: .nan', 'is nan'), ('device: 0', 'write it as text')])
def test_config_values_of_another_kind(text, sentence, tmp_path, capsys):
    (tmp_path/'c.yaml').write_text(text + '\n')
    assert main(['train', str(tmp_path/'c.yaml'), '--out', str(tmp_path/'o')]) == 2
    assert sentence in capsys.readouterr().err


def test_paths_that_are_something_else(tmp_path, capsys, repo):
    (tmp_path/'file').write_text('x')
    assert main(['train', str(repo/'configs'/'depth_033.yaml'), '--n-train', '8', '--n-val', '4', '--epochs', '1', '--out', str(tmp_path/'file')]) == 2
    (tmp_path/'t.csv').write_text('a,b\n1,2\n')
    assert main(['report', str(tmp_path/'t.csv')]) == 2
    err = capsys.readouterr().err
    assert 'file' in err and 'the column status is missing' in err and 'Traceback' not in err


def test_shipped_configs_are_the_five(repo):
    from layerscale_nb.study.variants import VARIANTS, load_config
    found = {v.name: v for p in sorted((repo/'configs').glob('*.yaml')) for v in load_config(p).variants}
    assert found == {v.name: v for v in VARIANTS}


def test_options_reach_the_study():
    f, asked = command_of(['study', '--imgsz', '416x128', '--seeds', '0', '2', '--lr', '0.001', '--n-val', '9', '--base', '0.33', '0.25', '1024'])
    s = study_of(**{k: v for k, v in asked.items() if k not in ('jobs', 'out', 'plan', 'engine', 'cpus', 'gpus')})
    assert s.imgsz == (128, 416) and s.seeds == (0, 2) and s.recipe.lr == 0.001 and s.n_val == 9 and s.base == (0.33, 0.25, 1024)


def test_import_is_light():
    code = 'import sys, layerscale_nb, layerscale_nb.nets.yolo, layerscale_nb.core, layerscale_nb.cli; print([m for m in ("torch", "ultralytics", "pandas", "matplotlib") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_a_closed_form_needs_no_torch():
    "`layerscale count EN-B0` and `layerscale scale EN-B0` start nothing heavy."
    code = 'import sys; from layerscale_nb.cli import main; main(sys.argv[1:])\n' \
           'print([m for m in ("torch", "ultralytics", "pandas", "numpy") if m in sys.modules])'
    for words in (['count', 'EN-B0'], ['count', 'yolov8n', '--imgsz', '640'], ['scale', 'EN-B0', '--rule', 'dWr', '--s', '4']):
        run = subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True, check=True)
        assert run.stdout.strip().endswith('[]'), run.stdout


def test_torch_free_modules():
    "What the design lists needs no torch: the top, networks but for building and counting them, the roofline."
    free = [m for m in modules(root) if '.' not in m or m.startswith(('nets.', 'laws.')) or m == 'timing.roofline']
    free = sorted({*free} - {*ALIASES, 'nets.build', 'nets.count', 'nets.conventions', 'nets.features'})
    code = 'import sys, importlib\nfor m in sys.argv[1:]: importlib.import_module("layerscale_nb." + m)\n' \
           'print([m for m in ("torch", "ultralytics", "pandas") if m in sys.modules])'
    run = subprocess.run([sys.executable, '-c', code, *free], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]' and len(free) > 8


def test_data_command(capsys, tmp_path):
    assert main(['data', '--sheet', str(tmp_path/'s.png')]) == 0
    assert 'cyclist' in capsys.readouterr().out and (tmp_path/'s.png').stat().st_size > 1e4


@pytest.mark.parametrize('text, sentence', [('base: 1.0\n', 'give depth, width and max_channels'), ('variant: a/b\n', 'names a folder'), ('lr: fast\n', "lr is 'fast'")])
def test_config_with_bad_value(tmp_path, capsys, text, sentence):
    (tmp_path/'c.yaml').write_text(text)
    assert main(['train', str(tmp_path/'c.yaml'), '--out', str(tmp_path/'o')]) == 2
    assert sentence in capsys.readouterr().err


def test_count_command(capsys, tmp_path):
    import json, yaml
    from layerscale_nb.nets.yolo import to_dict, yolov8
    from layerscale_nb.nets.layer import cost
    assert main(['count', 'yolov8l', '--imgsz', '640', '--json']) == 0
    got = json.loads(capsys.readouterr().out)
    assert {k: got[k] for k in ('macs', 'params', 'acts')} == vars(cost(yolov8('l'), 640).total) and got['resolution'] == 640
    assert main(['count', 'EN-B0', '--json', '--stages']) == 0
    got = json.loads(capsys.readouterr().out)
    assert got['macs'] == 385_814_752 == sum(p['macs'] for p in got['parts'].values()) and got['resolution'] == 224
    (tmp_path/'mine.yaml').write_text(yaml.safe_dump(to_dict(yolov8('s'))))
    assert main(['count', str(tmp_path/'mine.yaml'), '--imgsz', '416x128', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['macs'] == cost(yolov8('s'), (128, 416)).macs
    assert main(['count', 'resnet50', 'ViT-B/16']) == 0 and 'ViT-B/16, 224x224' in capsys.readouterr().out


def test_count_a_yaml_with_unknown_modules(capsys, tmp_path):
    "What the closed form does not know is built by Ultralytics and counted."
    import json, yaml
    (tmp_path/'c3.yaml').write_text(yaml.safe_dump(dict(nc=3, backbone=[[-1, 1, 'Conv', [16, 3, 2]], [-1, 1, 'C3Ghost', [32]], [-1, 1, 'Conv', [32, 3, 2]]], head=[[[1, 2], 1, 'Detect', ['nc']]])))
    assert main(['count', str(tmp_path/'c3.yaml'), '--imgsz', '64', '--json']) == 0
    got = json.loads(capsys.readouterr().out)
    assert got['how'] == 'counted' and got['macs'] > 0 and got['params'] > 0


def test_scale_command(capsys):
    import json
    assert main(['scale', 'EN-B0', '--rule', 'dWr', '--s', '4', '--json']) == 0
    got = json.loads(capsys.readouterr().out)
    assert got['requested']['w'] == pytest.approx(4**0.4) and got['realised']['r'] == 240/224 and got['before']['macs'] == 385_814_752
    assert got['after']['macs'] > 3*got['before']['macs'] and got['ws_after'][0] % 8 == 0
    assert main(['scale', 'yolov8n', '--rule', 'w', '--s', '4']) == 0 and 'asked' in capsys.readouterr().out


@pytest.mark.parametrize('words, sentence', [
    (['count', 'yolov8q'], 'Did you mean'), (['count', 'EN-B0', '--imgsz', '0'], 'not a positive number of pixels'), (['count', 'yolov8n', '--imgsz', '600'], 'the next one is 608'),
    (['count', 'torchvision:resnet49'], 'torchvision has no model'), (['count', 'keras:a'], 'no model source'), (['count', 'nowhere.yaml'], 'no such file'),
    (['scale', 'EN-B0', '--rule', 'dwrr'], "Did you mean 'dwr'?"), (['scale', 'EN-B0', '--s', '0'], 'scale factor s'), (['scale', 'EN-B0', '--rule', 'alpha=2'], 'alpha is'), (['scale', 'torchvision:resnet18'], 'not scaled')])
def test_bad_names_and_rules(words, sentence, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.startswith('layerscale: ') and err.count('\n') == 1


def test_train_several_configs(repo, tmp_path, capsys):
    "The ablation in one command: every file is a run; files of different settings are refused."
    files = [str(p) for p in sorted((repo/'configs'/'ablation').glob('*fpn*leaky.yaml'))]
    small = ['--epochs', '1', '--n-train', '8', '--n-val', '4', '--imgsz', '64x64', '--device', 'cpu', '--out', str(tmp_path/'o')]
    assert len(files) == 2 and main(['train', *files, *small]) == 0
    said = capsys.readouterr().out
    assert all(f'[{i}/2] {Path(f).stem}' in said for i, f in enumerate(files, 1)) and len((tmp_path/'o'/'results.csv').read_text().splitlines()) == 3
    (tmp_path/'other.yaml').write_text('net: yolov5n\nepochs: 3\n')
    assert main(['train', files[0], str(tmp_path/'other.yaml')]) == 2
    assert 'has other settings than' in capsys.readouterr().err
    (tmp_path/'wrong.yaml').write_text('net: yolov5q\n')
    assert main(['train', str(tmp_path/'wrong.yaml')]) == 2
    assert "no network 'yolov5q'" in capsys.readouterr().err


def test_json_and_errors_go_to_different_streams(capsys):
    "A script may send the output of --json into a file: an error is never in it, and each name is one line."
    import json
    assert main(['count', 'yolov8n', 'EN-B0', '--json']) == 0
    out, err = capsys.readouterr()
    assert [json.loads(l)['name'] for l in out.splitlines()] == ['yolov8n', 'EN-B0'] and not err
    assert main(['count', 'EN-B99', '--json']) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('layerscale: ')


def test_exit_statuses(monkeypatch):
    "0 done, 2 bad input or wrong usage or no memory, 130 interrupted; a bug is not caught."
    import layerscale_nb.cli as c
    assert main([]) == 0 and main(['count', 'EN-B0']) == 0 and main(['count', 'EN-B99']) == 2
    with pytest.raises(SystemExit) as e: main(['count', '--no-such-option'])
    assert e.value.code == 2
    for error, status in ((KeyboardInterrupt(), 130), (MemoryError(), 2), (RuntimeError('out of memory'), 2)):
        def fails(names: list[str], *, error=error):
            "count"
            raise error
        monkeypatch.setitem(c.COMMANDS, 'count', fails)
        assert main(['count', 'EN-B0']) == status
    def bug(names: list[str]):
        "count"
        raise ZeroDivisionError('a bug')
    monkeypatch.setitem(c.COMMANDS, 'count', bug)
    with pytest.raises(ZeroDivisionError): main(['count', 'EN-B0'])


@pytest.mark.parametrize('words, sentence', [
    (['bench', 'predictor', '--names', 'yolov8q', '--device', 'cpu', '--out', 'x.csv'], 'Did you mean'),
    (['bench', 'predictor', '--names', 'yolov8n', '--imgsz', '60', '--device', 'cpu', '--out', 'x.csv'], 'the next one is 64')])
def test_bench_predictor_refuses_before_it_measures(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count('\n') == 1 and not list(tmp_path.iterdir())


COMMAND = [sys.executable, '-c', 'import sys; from layerscale_nb.cli import main; sys.exit(main())']
BUFFERED = {k: v for k, v in os.environ.items() if k != 'PYTHONUNBUFFERED'}


@pytest.mark.parametrize('encoding, dash', [('ascii', b'-'), ('cp437', b'-'), ('ascii:surrogateescape', b'-'),
                                            ('cp1252', b'\x96'), ('utf-8', '–'.encode())])
def test_any_terminal_shows_our_dash(encoding, dash):
    "The exponent of a factor of 1 is unknown, and shown as a dash."
    env = os.environ | dict(PYTHONIOENCODING=encoding, PYTHONUTF8='0')
    r = subprocess.run([*COMMAND, 'scale', 'EN-B0', '--s', '1'], capture_output=True, env=env)
    assert r.returncode == 0 and not r.stderr, r.stderr
    costs = [line for line in r.stdout.splitlines() if line.startswith((b'macs', b'params', b'acts'))]
    assert [line.split()[-1] for line in costs] == [dash]*3


def test_class_names_on_a_terminal_without_their_letters(tmp_path):
    "A data set with classes in another script, where only ascii can be shown."
    import numpy as np
    from PIL import Image
    for part in ('images', 'labels'): (tmp_path/part).mkdir()
    for i in range(2):
        Image.fromarray(np.full((64, 64, 3), 90*i, np.uint8)).save(tmp_path/'images'/f'{i}.png')
        (tmp_path/'labels'/f'{i}.txt').write_text(f'{i} .5 .5 .5 .5\n')
    (tmp_path/'data.yaml').write_text('train: images\nval: images\nnames: ["Fu\\u00dfg\\u00e4nger", "\\u8f66"]\n')
    env = os.environ | dict(PYTHONIOENCODING='ascii')
    r = subprocess.run([*COMMAND, 'data', str(tmp_path)], capture_output=True, env=env, text=True)
    assert r.returncode == 0 and 'Fu?g?nger' in r.stdout, r.stderr


@pytest.mark.parametrize('words', ['count EN-B0 EN-B1', 'count EN-B0 EN-B1 --json', '--help', 'scale EN-B0 --json'])
def test_a_reader_that_leaves_is_no_error(words):
    "As in `| head -1`: no word, and the status a shell gives a program whose reader has gone."
    for env in (BUFFERED, BUFFERED | dict(PYTHONUNBUFFERED='1')):
        child = subprocess.Popen([*COMMAND, *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        child.stdout.close()
        forgiven = words == '--help' and env is not BUFFERED  # by argparse
        assert child.stderr.read() == b'' and child.wait() == (0 if forgiven else 141)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full here')
def test_a_full_disk_behind_the_output_is_a_sentence():
    with open('/dev/full', 'w') as full:
        words = [*COMMAND, 'scale', 'EN-B0', '--json']
        r = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=BUFFERED, text=True)
    assert r.returncode == 2 and r.stderr == 'layerscale: cannot write the output: No space left on device.\n'


@pytest.mark.skipif(os.name == 'nt', reason='a shell without >&-')
def test_no_output_at_all(tmp_path):
    shell = f'"{COMMAND[0]}" -c "{COMMAND[2]}" count EN-B0 >&-'
    r = subprocess.run(['sh', '-c', shell], stderr=subprocess.PIPE, text=True)
    assert r.returncode == 0 and r.stderr == ''


def test_a_stream_keeps_its_own_way(capsys):
    "Only what would raise is changed, and only while the command runs."
    import io

    from layerscale_nb.cli import any_encoding
    for errors, shown in (('strict', b'-?'), ('backslashreplace', b'\\u2013\\u8f66'), ('ignore', b'')):
        s = io.TextIOWrapper(io.BytesIO(), 'ascii', errors)
        with any_encoding(s): s.write('–车')
        assert s.buffer.getvalue() == shown or s.flush() or s.buffer.getvalue() == shown
        assert s.errors == errors
    with any_encoding(io.StringIO()), any_encoding(None): pass
