"What people's data folders hold: each input is read rightly, or a note or one sentence says why it is not."
import ast
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image, features
from test_data import kitti_set, picture, voc_set, yolo_set

from layerscale_nb.cli import main
from layerscale_nb.core import LayerscaleError, read_yaml
from layerscale_nb.detect.datasets import load_data
from layerscale_nb.detect.store import contact_sheet, draw_boxes, dataset_summary


def whys(ds): return {(n.kind, n.why, n.where.split('/')[-1]) for n in ds.notes}


def label(root, text, name='train/0'): (root/'labels'/f'{name}.txt').write_text(text, encoding='utf-8')


def describe(root, text, name='data.yaml'): (root/name).write_text(text, encoding='utf-8')


def box_in(w, h, *shares): return [np.float32(v) for v in np.multiply(shares, (w, h, w, h))]


def within(seconds, f, *args):
    "What `f` gives or raises; fails if it takes longer (it may be waiting for ever)."
    out = []

    def run():
        try: out.append(f(*args))
        except Exception as e: out.append(e)
    t = threading.Thread(target=run, daemon=True)
    t.start()
    t.join(seconds)
    assert out, f'{f.__name__} did not come back within {seconds} s'
    return out[0]


# C1: a row is what its format says

@pytest.mark.parametrize('points, dim', [(17, 3), (4, 2), (3, 2), (1, 2), (2, 3)])
def test_pose_rows_give_their_box(tmp_path, points, dim):
    root = yolo_set(tmp_path)
    describe(root, f'train: images/train\nval: images/val\nnames: [cat, dog]\nkpt_shape: [{points}, {dim}]\n')
    keys = ' '.join(['.9', '.1', '2'][:dim]*points)
    label(root, f'1 .5 .5 .2 .4 {keys}\n0 .2 .2 .1 .1\n0 .2 .2 .1 .1 .3\n')
    ds = load_data(root)
    np.testing.assert_allclose(ds.train[0].boxes[0], box_in(128, 64, .4, .3, .6, .7), atol=1e-4)
    assert ds.train[0].cls.tolist() == [1, 0] and len(ds.notes) == 1
    assert ds.notes[0].where.endswith('0.txt:3') and ds.notes[0].why == f'neither 5 numbers nor the {5 + points*dim} of kpt_shape'
    describe(root, 'train: images/train\nval: images/val\nnames: [cat, dog]\nkpt_shape: 17\n')
    with pytest.raises(LayerscaleError, match='kpt_shape is 17'): load_data(root)


@pytest.mark.parametrize('row, why', [
    ('Car trailer 0.00 0 -1.57 10 10 40 40 1.5 1.6 3.7 -16.5 2.4 58.5 1.57', 'truncation, occlusion and angle are not numbers: a class of two words?'),
    ('Person sitting 0.00 0 -1.57 10 10 40 40 1.5 1.6 3.7 -16.5 2.4 58.5 1.57', "unknown class 'Person'"),
    ('Car 2 0.00 0 -1.57 10 10 40 40 1.5 1.6 3.7 -16.5 2.4 58.5 1.57', 'truncation, occlusion or angle out of range'),
    ('Car 0.00 7 0 10 10 40 40 1.5 1.6 3.7 -16.5 2.4 58.5 1.57', 'truncation, occlusion or angle out of range'),
    ('Car 0.00 0 400 10 10 40 40 1.5 1.6 3.7 -16.5 2.4 58.5 1.57', 'truncation, occlusion or angle out of range'),
    ('Car 0.00 0 0 10 10 40 40 1.5 1.6 3.7 -16.5 2.4 far 1.57', 'size, place and turn are not seven numbers'),
])
def test_a_kitti_row_must_be_one_in_every_field(tmp_path, row, why):
    root = kitti_set(tmp_path)
    (root/'training'/'label_2'/'000000.txt').write_text(f'{row}\nCar 0.97 3 -10 10 10 50 40 -1 -1 -1 -1000 -1000 -1000 -10 0.7\n')
    ds = load_data(root)
    assert ('box dropped', why, '000000.txt:1') in whys(ds)
    assert ds.train[0].boxes.tolist() == [[10, 10, 50, 40]]


def test_a_class_is_a_whole_number_and_coordinates_are_shares(tmp_path):
    root = yolo_set(tmp_path)
    label(root, '1.7 .5 .5 .1 .1\nnan .5 .5 .1 .1\n1.0 .5 .5 .1 .1\n0 64 32 20 20\n0 10 10 40 10 40 40\n0 1.02 .5 .1 .1\n')
    ds = load_data(root)
    assert ds.train[0].cls.tolist() == [1, 0]
    dropped = {w: why for kind, why, w in whys(ds) if kind == 'box dropped'}
    assert dropped['0.txt:1'] == 'class 1.7 is no whole number' and dropped['0.txt:2'] == 'class nan is no whole number'
    assert dropped['0.txt:4'].startswith('not 0..1') and dropped['0.txt:5'].startswith('not 0..1') and len(dropped) == 4
    assert ('box clipped', 'partly outside', '0.txt:6') in whys(ds)


# C2: one object is one truth, one class one column

def test_the_same_box_twice_is_one_truth(tmp_path):
    from layerscale_nb.detect.metrics import match_all, scores
    y, k, v = (tmp_path/n for n in 'ykv')
    for p in (y, k, v): p.mkdir()
    yolo_set(y)
    label(y, '0 .5 .5 .4 .4\n0 0.50 0.5 .4 .4\n1 .5 .5 .4 .4\n')
    kitti_set(k)
    (k/'training'/'label_2'/'000000.txt').write_text('Car 0 0 0 10 10 50 40 1 1 1 0 0 9 0\n'*2)
    voc_set(v, 'abc', dict(train='ab', val='c'))
    xml = (v/'Annotations'/'a.xml').read_text()
    (v/'Annotations'/'a.xml').write_text(xml.replace('<a>', '<a>' + xml[3:-4]))
    for root, where, n in ((y, '0.txt:2', 2), (k, '000000.txt:2', 1), (v, 'a.xml: object 2', 1)):
        ds = load_data(root)
        assert len(ds.train[0].cls) == n and whys(ds) >= {('box dropped', 'the same box twice', where)}
    x = load_data(k).train[0]
    hit = match_all([np.hstack([x.boxes[0], 1, x.cls[0]])], [x.boxes], [x.cls], 1)
    assert scores(hit)['map50'] == 1  # 0.505 while the second truth was there


def test_every_bndbox_of_an_object_is_read(tmp_path):
    root = voc_set(tmp_path, 'abc', dict(train='ab', val='c'))
    box = '<bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>{}</xmax><ymax>40</ymax></bndbox>'
    (root/'Annotations'/'a.xml').write_text(f'<a><object><name>cat</name>{box.format(5, 50)}{box.format(60, 90)}{box.format("x", 9)}</object>'
                                            f'<object>{box.format(5, 50)}</object></a>')
    ds = load_data(root)
    assert ds.train[0].boxes.tolist() == [[4, 4, 50, 40], [59, 4, 90, 40]]
    assert whys(ds) == {('box dropped', 'box is not four numbers', 'a.xml: object 1, box 3'), ('box dropped', 'no class name', 'a.xml: object 2')}


@pytest.mark.parametrize('names, want', [('[cat, cat]', ('cat', 'cat 2')), ("[cat, 'Cat ']", ('cat', 'Cat 2')), ("['a  b', 'a b']", ('a b', 'a b 2')),
                                         ('["\\ud800x", "\\ud83d\\ude97"]', ('\ufffdx', '\U0001f697'))])
def test_no_two_classes_share_a_column(tmp_path, names, want):
    root = yolo_set(tmp_path)
    describe(root, f'train: images/train\nval: images/val\nnames: {names}\n')
    ds = load_data(root)
    assert ds.names == want and list(dataset_summary(ds).index) == [*want, 'all']
    assert sum(n.kind == 'class renamed' for n in ds.notes) >= 1
    str(ds.notes).encode()  # can be printed


# C3: everything found is used or noted

def test_linked_folders_are_followed_once(tmp_path):
    root, far = yolo_set(tmp_path/'set'), tmp_path/'disk'
    for kind in ('images', 'labels'):
        (far/kind).mkdir(parents=True)
        for i in (1, 2, 3): next((root/kind/'train').glob(f'{i}.*')).rename(far/kind/f'far{i}{".jpg" if kind == "images" else ".txt"}')
        (root/kind/'train'/'far').symlink_to(far/kind)
        (root/kind/'train'/'back').symlink_to(root/kind)                # upwards: a circle
    (far/'images'/'round').symlink_to(root/'images'/'train')            # and one through the other disk
    (root/'images'/'train'/'again').symlink_to(far/'images')            # the same folder under two names
    ds = within(20, load_data, root)
    assert sorted(x.id for x in ds.train) == ['0', 'far1', 'far2', 'far3']
    assert [len(x.cls) for x in ds.train if x.id == '0'] == [2] and sum(n.kind == 'folder skipped' for n in ds.notes) >= 3


def test_a_real_folder_comes_before_a_link_to_it(tmp_path):
    root = yolo_set(tmp_path)
    for kind in ('images', 'labels'):
        (root/kind/'train'/'real').mkdir()
        for p in (root/kind/'train').glob('?.*'): p.rename(p.parent/'real'/p.name)
    (root/'images'/'train'/'a_link').symlink_to(root/'images'/'train'/'real')
    assert [len(x.cls) for x in load_data(root).train] == [2, 2, 2, 2]  # a_link's labels would not be found


def test_hidden_copies_are_no_images(tmp_path):
    root = yolo_set(tmp_path)
    picture(root/'images'/'train'/'.ipynb_checkpoints'/'0-checkpoint.jpg')
    (root/'images'/'train'/'._1.jpg').write_bytes(b'\0\5\x16\7')
    ds = load_data(root)
    assert len(ds.train) == 4
    assert whys(ds) == {('folder skipped', 'hidden', '.ipynb_checkpoints'), ('image skipped', 'hidden', '._1.jpg')}


def test_other_endings_are_read_or_noted(tmp_path):
    root, im = yolo_set(tmp_path), Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 128, 3), dtype=np.uint8))
    folder, can = root/'images'/'train', {'mpo': True, 'jfif': True, 'gif': True, 'avif': features.check('avif'), 'jp2': features.check('jpg_2000')}
    for p in folder.glob('*.jpg'): p.unlink()
    for k, end in enumerate(can):
        if can[end]: im.save(folder/f'{k}.{end}', dict(jfif='JPEG', jp2='JPEG2000').get(end, end.upper()))
        else: (folder/f'{k}.{end}').write_bytes(b'pixels')
        label(root, '0 .5 .5 .4 .4', f'train/{k}')
    (folder/'raw.cr2').write_bytes(b'pixels')
    (folder/'noending').write_bytes(b'pixels')
    (folder/'9.heic').write_bytes(b'pixels')
    ds = load_data(root)
    assert sorted(x.id for x in ds.train) == [str(k) for k, end in enumerate(can) if can[end]]
    assert whys(ds) >= {('file skipped', "ending '.cr2' is not read", 'raw.cr2'), ('file skipped', "ending '' is not read", 'noending'),
                        ('image skipped', 'missing or not an image', '9.heic')}


def test_an_image_in_no_split_is_noted(tmp_path):
    v, k, y = (tmp_path/n for n in 'vky')
    for p in (v, k, y): p.mkdir()
    voc_set(v, 'abcde', dict(train='ab', val='c', test='d'))
    assert whys(load_data(v)) == {('image skipped', 'in neither split', 'd.jpg'), ('image skipped', 'in neither split', 'e.jpg')}
    kitti_set(k)
    (k/'ImageSets').mkdir()
    for s, ids in dict(train='000000\n000000\n000001', val='000002', test='000003').items(): (k/'ImageSets'/f'{s}.txt').write_text(ids)
    ds = load_data(k)
    assert len(ds.train) == 2 and whys(ds) == {('image skipped', 'in neither split', '000003.png'), ('image skipped', 'in neither split', '000004.png'),
                                               ('image used once', 'listed more than once for training', '000000')}
    yolo_set(y)
    picture(y/'images'/'later'/'5.jpg')
    picture(y/'elsewhere'/'6.jpg')
    (y/'train.txt').write_text('images/train/0.jpg\nimages/train/1.jpg\n')
    describe(y, 'train: train.txt\nval: images/val\ntest: elsewhere\nnames: [cat, dog]\n')
    assert whys(load_data(y)) == {('image skipped', 'in neither split', f'{i}.jpg') for i in '2356'}


def test_a_label_without_an_image_is_noted(tmp_path):
    root = yolo_set(tmp_path)
    (root/'images'/'train'/'1.jpg').unlink()
    (root/'labels'/'train'/'classes.txt').write_text('cat\ndog\n')
    assert whys(load_data(root)) == {('label skipped', 'no image', '1.txt')}
    beside = tmp_path/'beside'  # images and labels in one folder
    for split in ('train', 'val'):
        for i in range(3): picture(beside/split/f'{i}.jpg')
        for i in range(4): (beside/split/f'{i}.txt').write_text('0 .5 .5 .4 .4')
        (beside/split/'README.txt').write_text('made by hand')
    describe(beside, 'train: train\nval: val\nnames: [cat]\n')
    ds = load_data(beside)
    assert [n.why for n in ds.notes] == ['no image', 'no image'] and [len(x.cls) for x in ds.train] == [1, 1, 1]


def test_an_unreadable_yolo_label_is_no_background(tmp_path):
    root = yolo_set(tmp_path)
    (root/'labels'/'train'/'0.txt').unlink()
    (root/'labels'/'train'/'0.txt').mkdir()
    ds = load_data(root)
    assert len(ds.train) == 3 and ('image skipped', 'label not readable', '0.txt') in whys(ds)


# C4: which layout it is

@pytest.mark.parametrize('other', ['training', 'JPEGImages'])
@pytest.mark.parametrize('name', ['data.yaml', 'signs.yml'])
def test_a_description_wins_over_a_folder_name(tmp_path, other, name):
    root = yolo_set(tmp_path)
    (root/'data.yaml').unlink()
    (root/'images'/'train').rename(root/'images'/other)
    (root/'labels'/'train').rename(root/'labels'/other)
    (root/other).mkdir()
    describe(root, f'train: images/{other}\nval: images/val\nnames: [cat, dog]\n', name)
    describe(root, 'task: detect\nmode: train\ndata: x.yaml\n', 'args.yaml')
    describe(root, 'nc: 80\nbackbone: []\n', 'a_model.yaml')
    ds = load_data(root)
    assert len(ds.train) == 4 and ds.names == ('cat', 'dog') and ds.notes == ()


def test_settings_beside_kitti_do_not_make_it_yolo(tmp_path):
    root = kitti_set(tmp_path)
    describe(root, 'epochs: 3\n', 'args.yaml')
    assert load_data(root).names == ('car', 'van')


def test_two_descriptions_are_a_question(tmp_path):
    root = yolo_set(tmp_path)
    text = (root/'data.yaml').read_text()
    describe(root, text, 'other.yaml')
    assert len(load_data(root).train) == 4  # data.yaml by its name
    (root/'data.yaml').rename(root/'one.yaml')
    with pytest.raises(LayerscaleError, match='one.yaml and other.yaml both describe data'): load_data(root)
    assert load_data(root/'one.yaml').name == 'one'


def test_cvat_writes_folders_in_folders_and_capital_sets(tmp_path):
    (tmp_path/'ImageSets'/'Main').mkdir(parents=True)
    xml = '<annotation><object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>40</ymax></bndbox></object></annotation>'
    for name in ('day1/a', 'day1/b', 'day2/a'):
        picture(tmp_path/'JPEGImages'/f'{name}.jpg')
        (tmp_path/'Annotations'/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'Annotations'/f'{name}.xml').write_text(xml)
    (tmp_path/'ImageSets'/'Main'/'Train.txt').write_text('day1/a\nday1/b\n')
    (tmp_path/'ImageSets'/'Main'/'Validation.txt').write_text('day2/a\n')
    ds = load_data(tmp_path)
    assert [str(x.image.relative_to(tmp_path)) for x in (*ds.train, *ds.val)] == ['JPEGImages/day1/a.jpg', 'JPEGImages/day1/b.jpg', 'JPEGImages/day2/a.jpg']
    assert ds.notes == ()
    (tmp_path/'ImageSets'/'Main'/'Validation.txt').rename(tmp_path/'ImageSets'/'Main'/'VAL.TXT')
    ds = load_data(tmp_path)
    assert [x.image.name for x in ds.val] == ['a.jpg'] and len(ds.train) == 2 and ds.notes == ()
    (tmp_path/'ImageSets'/'Main'/'VAL.TXT').unlink()
    assert {n.why for n in load_data(tmp_path).notes} == {'no train and val lists: the last fifth validates'}


@pytest.mark.parametrize('text', [
    'Train: images/train\nValidation: images/val\nnames: [cat, dog]\n',
    '"train": images/train\n\'validation\': images/val\n"names": {"0": cat, "1": dog}\n',
    'train: images\\train\nvalid: .\\images\\val\nnames: [cat, dog]\n',
    'path: set\ntrain: images/train\nval: images/val\nnames: {1: dog, 0: cat}\n',
    'train: set/images/train\nval: set/images/val\nnames: [cat, dog]\n',
])
def test_a_description_is_read_as_it_is_meant(tmp_path, monkeypatch, text):
    root = yolo_set(tmp_path/'set')
    describe(root, text)
    monkeypatch.chdir(tmp_path)
    ds = load_data(root)
    assert ds.names == ('cat', 'dog') and len(ds.train) == len(ds.val) == 4 and ds.notes == ()
    assert all(len(x.cls) == 2 for x in ds.train)


def test_nc_without_and_against_names(tmp_path):
    root = yolo_set(tmp_path)
    describe(root, "train: images/train\nval: images/val\nnc: '2'\n")
    assert load_data(root).names == ('0', '1')
    describe(root, "train: images/train\nval: images/val\nnc: '3'\nnames: [cat, dog]\n")
    assert whys(load_data(root)) == {('classes', 'nc is 3, but there are 2 names', 'data.yaml')}
    describe(root, 'train: images/train\nval: images/val\nnc: two\nnames: [cat, dog]\n')
    assert whys(load_data(root)) == {('classes', 'nc is two, but there are 2 names', 'data.yaml')}
    describe(root, 'train: images/train\nval: images/val\nnames: [[cat], dog]\n')
    with pytest.raises(LayerscaleError, match="names are .*cat.*write a list"): load_data(root)
    describe(root, 'train: images/train\nval: images/val\nnc: 2000000000\n')
    with pytest.raises(LayerscaleError, match="no 'names'"): load_data(root)


# C5: text as it was written

@pytest.mark.parametrize('way', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'cp1252'])
def test_lists_in_any_encoding(tmp_path, way):
    root = yolo_set(tmp_path)
    (root/'images'/'train'/'0.jpg').rename(root/'images'/'train'/'Füße.jpg')
    (root/'labels'/'train'/'0.txt').rename(root/'labels'/'train'/'Füße.txt')
    (root/'train.txt').write_bytes('images\\train\\Füße.jpg\r\n./images/train/1.jpg\r\n'.encode(way))
    (root/'labels'/'train'/'1.txt').write_bytes('0 .5 .5 .4 .4\r\n1 .2 .2 .1 .1'.encode(way))
    describe(root, 'train: train.txt\nval: images/val\nnames: [cat, dog]\n')
    ds = load_data(root)
    assert [x.id for x in ds.train] == ['Füße', '1'] and [len(x.cls) for x in ds.train] == [2, 2]
    v = tmp_path/'v'
    v.mkdir()
    voc_set(v, ('Füße', 'b', 'c'), {})
    for s, ids in dict(train='Füße\r\nb', val='c').items(): (v/'ImageSets'/'Main'/f'{s}.txt').write_bytes(ids.encode(way))
    assert [x.id for x in load_data(v).train] == ['Füße', 'b']


@pytest.mark.parametrize('said, way', [('gb2312', 'gb2312'), ('GBK', 'gbk'), ('gb2312', 'gb18030'), ('big5', 'big5'), ('euc-kr', 'euc-kr'), ('shift_jis', 'shift_jis'),
                                       ('utf-16', 'utf-16'), ('utf-16', 'utf-8'), ('windows-1252', 'cp1252'), ('no-such-code', 'utf-8'), ('zip', 'utf-8')])
def test_voc_in_its_own_encoding(tmp_path, said, way):
    root, name = voc_set(tmp_path, 'abc', dict(train='ab', val='c')), 'Füße' if way in ('cp1252', 'utf-8') else '人'
    xml = f'<?xml version="1.0" encoding="{said}"?>\n<a><object><name>{name}</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>40</ymax></bndbox></object></a>'
    for n in 'abc': (root/'Annotations'/f'{n}.xml').write_bytes(xml.encode(way))
    ds = load_data(root)
    assert ds.names == (name,) and len(ds.train) == 2 and ds.notes == ()


def test_a_name_in_a_wrong_encoding_is_no_class(tmp_path):
    root = voc_set(tmp_path, 'abc', dict(train='ab', val='c'))
    text = (root/'Annotations'/'a.xml').read_text()
    both = text.replace('<a>', '<a>' + text[3:-4].replace('cat', '行人'))
    (root/'Annotations'/'a.xml').write_bytes(('<?xml version="1.0" encoding="utf-8"?>' + both).encode('gbk'))
    ds = load_data(root)
    assert ds.names == ('cat',) and len(ds.train) == 2
    assert whys(ds) == {('box dropped', "class name not in the file's encoding", 'a.xml: object 1')}


def test_an_old_locale_changes_nothing(tmp_path):
    root, v = yolo_set(tmp_path/'y'), tmp_path/'v'
    v.mkdir()
    voc_set(v, ('Füße', 'b', 'c'), {})
    for s, ids in dict(train='Füße\nb', val='c').items(): (v/'ImageSets'/'Main'/f'{s}.txt').write_text(ids, encoding='utf-8')
    (root/'images'/'train'/'0.jpg').rename(root/'images'/'train'/'Füße.jpg')
    (root/'labels'/'train'/'0.txt').rename(root/'labels'/'train'/'Füße.txt')
    (root/'train.txt').write_text('images/train/Füße.jpg\n', encoding='utf-8')
    describe(root, 'train: [train.txt]\nval: images/val\nnames: [Fußgänger, 行人]\n')
    code = 'import locale, sys; from layerscale_nb.detect.datasets import load_data\n' \
           'for p in sys.argv[1:]: ds = load_data(p); print(ascii(ds.names), [len(x.cls) for x in ds.train], len(ds.notes))\n' \
           'print(locale.getpreferredencoding(False))'
    env = os.environ | dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    r = subprocess.run([sys.executable, '-c', code, root, v], capture_output=True, text=True, env=env)
    y, cat, ways = r.stdout.splitlines() or [r.stderr]*3
    assert 'utf' not in ways.lower(), ways
    assert y == f"{ascii(('Fußgänger', '行人'))} [2] 3" and cat == "('cat',) [1, 1] 0"  # the three images of train that the list leaves out


@pytest.mark.parametrize('name', ['"a\\0b"', '"\\ud800"', '"\\ud83d\\ude97"'])
def test_a_name_no_file_can_have_is_one_sentence(tmp_path, name):
    root = yolo_set(tmp_path)
    describe(root, f'train: {name}\nval: images/val\nnames: [cat, dog]\n')
    with pytest.raises(LayerscaleError, match="no such folder; it should hold the 'train' images"): load_data(root)
    describe(root, f'path: {name}\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n')
    with pytest.raises(LayerscaleError, match='no such folder'): load_data(root)


def test_no_text_file_is_opened_in_the_locale_of_the_machine(repo):
    "Reading and writing text names its encoding, in every module."
    missing, first = [], {'read_text': 0, 'write_text': 1, 'open': 3, 'fdopen': 3}
    files = sorted((repo/'layerscale_nb').rglob('*.py'))
    assert len(files) > 60
    for p in files:
        for c in ast.walk(ast.parse(p.read_text(encoding='utf-8'))):
            if not isinstance(c, ast.Call): continue
            name = getattr(c.func, 'attr', getattr(c.func, 'id', None))
            owner = getattr(getattr(c.func, 'value', None), 'id', '')
            words, keys = [a.value for a in c.args if isinstance(a, ast.Constant)], {k.arg for k in c.keywords}
            if name in ('open', 'fdopen') and (owner in ('Image', 'os', 'webbrowser', 'self', 'engine') or any('b' in str(w) for w in words[:1] if len(str(w)) < 4)): continue
            if name in first and 'encoding' not in keys and len(c.args) <= first[name]: missing.append(f'{p.name}:{c.lineno}')
            if name in ('Popen', 'run') and {'text', 'universal_newlines'} & keys: missing.append(f'{p.name}:{c.lineno}')
    assert not missing, missing


# D3: sizes, pipes, disks and names

@pytest.mark.parametrize('w, h', [(4000, 3), (16, 2000), (1, 1), (3000, 1), (1, 3000)])
def test_odd_shapes_fit_on_the_sheet(tmp_path, w, h):
    root = yolo_set(tmp_path)
    picture(root/'images'/'train'/'0.jpg', w, h, fmt='PNG')
    label(root, '0 .5 .5 1 1\n')
    sheet = contact_sheet(load_data(root), 4, 2)
    assert sheet.size[0] == 806 and sheet.size[1] <= 2*800 + 6  # 100,006 high with 16x2000 enlarged to the width
    assert draw_boxes(np.zeros((3, 4000, 3), np.uint8), np.zeros((0, 4)), [], (), 0.1).shape == (1, 400, 3)


def test_a_cut_image_is_blamed_not_the_sheet(tmp_path, capsys):
    root = yolo_set(tmp_path)
    p = root/'images'/'train'/'0.jpg'
    p.write_bytes(p.read_bytes()[:1500])
    assert main(['data', str(root), '--sheet', str(tmp_path/'sheet.png')]) == 2
    said = capsys.readouterr().err
    assert '0.jpg: not a whole image' in said and 'sheet.png' not in said and said.count('\n') == 1


def test_pipes_do_not_hang(tmp_path):
    root, k, v = yolo_set(tmp_path/'y'), kitti_set(tmp_path/'k'), tmp_path/'v'
    v.mkdir()
    voc_set(v, 'abcd', dict(train='ab', val='c'))
    for p in (root/'images'/'train'/'f.png', root/'labels'/'train'/'0.txt', k/'training'/'image_2'/'f.png', k/'training'/'label_2'/'000001.txt', v/'Annotations'/'b.xml'):
        p.unlink(missing_ok=True)
        os.mkfifo(p)
    ds = within(20, load_data, root)
    assert len(ds.train) == 3 and {('file skipped', 'a pipe or a device', 'f.png'), ('image skipped', 'label not readable', '0.txt')} <= whys(ds)
    assert ('file skipped', 'a pipe or a device', '000001.txt') in whys(within(20, load_data, k))
    assert ('file skipped', 'a pipe or a device', 'b.xml') in whys(within(20, load_data, v))
    (root/'list').write_text('images/train/f.png\nimages/train/1.jpg\n')
    (root/'list').rename(root/'list.txt')
    describe(root, 'train: list.txt\nval: images/val\nnames: [cat, dog]\n')
    assert ('image skipped', 'missing or not an image', 'f.png') in whys(within(20, load_data, root))
    os.mkfifo(root/'pipe.yaml')
    assert str(within(20, load_data, root/'pipe.yaml')).startswith(f'{root/"pipe.yaml"}: a folder, a pipe or a device, not a file')
    (root/'data.yaml').unlink()
    os.mkfifo(root/'data.yaml')
    assert 'not a file' in str(within(20, load_data, root))


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch):
    from layerscale_nb.detect.images import image_size, read_image
    big = tmp_path/'big.png'
    Image.new('1', (13_000, 13_000)).save(big)
    monkeypatch.setattr(Image.Image, 'load', lambda self: pytest.fail('it was decoded'))
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: pytest.fail('it was decoded'))
    for f in (image_size, read_image):
        with pytest.raises(LayerscaleError, match='too many pixels, over 89 million'): f(big)
    monkeypatch.undo()
    root = yolo_set(tmp_path/'set')
    big.rename(root/'images'/'train'/'big.png')
    assert whys(load_data(root)) == {('image skipped', 'too many pixels', 'big.png')}


@pytest.mark.parametrize('text, words', [
    ('a: &a [x, x]\n' + ''.join(f'{chr(98+i)}: &{chr(98+i)} [{", ".join([f"*{chr(97+i)}"]*9)}]\n' for i in range(9)) + 'names: *j\n', 'its aliases make'),
    ('a: &a {x: 1}\n' + ''.join(f'{chr(98+i)}: &{chr(98+i)}\n  <<: [{", ".join([f"*{chr(97+i)}"]*9)}]\n' for i in range(9)), 'its aliases make'),
    ('names: &n [*n]\n', 'its aliases make'),
    ('names: ' + '['*3000 + ']'*3000, 'nested too deeply'),
    ('\n'.join('  '*i + 'a:' for i in range(3000)), 'nested too deeply'),
    ('names: !!bool maybe', 'not what its tag says'),
    ('names: !!timestamp x', 'not what its tag says'),
])
def test_a_yaml_stays_as_small_as_it_is_written(tmp_path, text, words):
    root = yolo_set(tmp_path)
    describe(root, text + '\ntrain: images/train\nval: images/val\n' if text.startswith(('a: &', 'names: &')) else text)
    for read in (read_yaml, load_data):
        start = time.perf_counter()
        with pytest.raises(LayerscaleError, match=words) as e: read(root/'data.yaml')
        assert len(str(e.value)) < 400 and '\n' not in str(e.value) and time.perf_counter() - start < 20


def test_honest_aliases_are_yaml(tmp_path):
    describe(tmp_path, 'a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\nname: Fußgänger\n')
    want = dict(a=dict(x=1), b=dict(x=1, y=2), c=[dict(x=1)]*2, name='Fußgänger')
    assert read_yaml(tmp_path/'data.yaml') == want
    (tmp_path/'data.yaml').write_bytes((tmp_path/'data.yaml').read_bytes().decode().encode('utf-16'))
    assert read_yaml(tmp_path/'data.yaml') == want


@pytest.mark.parametrize('entry', ['/', '..', '../..', './../'])
def test_a_split_is_not_the_disk(tmp_path, entry):
    root = yolo_set(tmp_path/'set')
    describe(root, f'train: {entry}\nval: images/val\nnames: [cat, dog]\n')
    got = within(10, load_data, root)
    assert isinstance(got, LayerscaleError) and 'a folder around the whole data set' in str(got)


def test_a_folder_of_other_things_is_left_early(tmp_path):
    root = yolo_set(tmp_path)
    (root/'stuff').mkdir()
    for i in range(10_100): (root/'stuff'/f'{i}.o').touch()
    describe(root, 'train: [images/train, stuff]\nval: images/val\nnames: [cat, dog]\n')
    with pytest.raises(LayerscaleError, match='over 10,000 files, and hardly an image'): load_data(root)


@pytest.mark.parametrize('source', ['x'*5000, '~nosuchuser/data', None, '', '  ', 'a\0b', 7, b'data', ['data'], 'x'*300 + '.yaml', 'x'*5000 + '.yaml'])
def test_what_is_no_path_is_one_sentence(source):
    with pytest.raises(LayerscaleError, match="Give 'roadscenes', a KITTI, VOC, YOLO or COCO folder") as e: load_data(source)
    assert len(str(e.value)) < 300 and '\n' not in str(e.value)


def test_what_the_disk_refuses_is_one_sentence(tmp_path, monkeypatch):
    from pathlib import Path
    root = kitti_set(tmp_path)

    def refuse(self): raise PermissionError(13, 'Permission denied', str(self))
    monkeypatch.setattr(Path, 'is_dir', refuse)
    with pytest.raises(LayerscaleError, match='Permission denied. Make it readable'): load_data(root)
