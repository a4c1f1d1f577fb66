"Bad input gets a sentence with file and line, and nothing else is lost. Real data reads as described."
import numpy as np
import pytest
from PIL import Image

from layerscale_nb.core import LayerscaleError
from layerscale_nb.detect.datasets import load_data, notes_table
from layerscale_nb.detect.images import image_size, read_image
from layerscale_nb.detect.store import contact_sheet, letterbox, natural_size, dataset_summary, to_frames


def picture(path, w=128, h=64, fmt=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)).save(path, fmt)


def kitti_set(root, n=5):
    for i in range(n):
        picture(root/'training'/'image_2'/f'{i:06d}.png', fmt='JPEG')  # JPEG bytes under a .png name
        p = root/'training'/'label_2'/f'{i:06d}.txt'; p.parent.mkdir(parents=True, exist_ok=True)
        p.write_text('Car 0 0 0 10 10 50 40 1 1 1 0 0 9 0\nVan 0 0 0 60 10 90 40 1 1 1 0 0 9 0\n')
    return root


def yolo_set(root, n=4):
    for split in ('train', 'val'):
        for i in range(n):
            picture(root/'images'/split/f'{i}.jpg')
            p = root/'labels'/split/f'{i}.txt'; p.parent.mkdir(parents=True, exist_ok=True); p.write_text('0 0.5 0.5 0.4 0.4\n1 0.2 0.2 0.1 0.1\n')
    (root/'data.yaml').write_text('train: images/train\nval: images/val\nnames: [cat, dog]\n')
    return root


def places(ds): return {(n.why, n.where.split('/')[-1]) for n in ds.notes}


def test_kitti_bad_lines(tmp_path):
    root = kitti_set(tmp_path)
    bad = ['Tank 0 0 0 1 2 30 40 1 1 1 0 0 9 0', 'DontCare -1 -1 -10 1 2 30 40 -1 -1 -1 0 0 0 0', 'Car 0 0 0 nan 2 30 40 1 1 1 0 0 9 0',
           'Car 0 0 0 30 2 10 40 1 1 1 0 0 9 0', 'Car 0 0 0 900 2 990 40 1 1 1 0 0 9 0', 'Car 0 0 0 -20 2 30 40 1 1 1 0 0 9 0', 'Car 0 0 0 a b c d 1 1 1 0 0 9 0', 'Car 1 2']
    (root/'training'/'label_2'/'000000.txt').write_text('\n'.join(bad))
    ds = load_data(root)
    where = {w: why for why, w in places(ds)}
    assert where['000000.txt:1'] == "unknown class 'Tank'" and where['000000.txt:2'] == 'DontCare region'
    assert where['000000.txt:3'] == 'not finite' and where['000000.txt:4'] == 'no area'
    assert where['000000.txt:5'].startswith('outside') and where['000000.txt:6'] == 'partly outside'
    assert where['000000.txt:7'] == 'box is not four numbers' and where['000000.txt:8'] == '3 fields instead of 15'
    assert ds.train[0].boxes.tolist() == [[0, 2, 30, 40]]  # the clipped one is the only one kept
    assert set(notes_table(ds)['what']) >= {'box dropped', 'box clipped'}


def test_kitti_eight_classes(tmp_path):
    root = kitti_set(tmp_path)
    names = ['Car', 'Van', 'Truck', 'Pedestrian', 'Person_sitting', 'Cyclist', 'Tram', 'Misc', 'DontCare']
    for i in range(5): (root/'training'/'label_2'/f'{i:06d}.txt').write_text('\n'.join(f'{n} 0 0 0 {5*k} 10 {5*k+4} 30 1 1 1 0 0 9 0' for k, n in enumerate(names)))
    ds = load_data(root)
    assert ds.names == ('car', 'van', 'truck', 'pedestrian', 'person_sitting', 'cyclist', 'tram', 'misc')
    assert sum(n.why == 'DontCare region' for n in ds.notes) == 5 and all(len(x.cls) == 8 for x in ds.train)


def test_unpaired_and_broken(tmp_path):
    root = kitti_set(tmp_path)
    (root/'training'/'label_2'/'000001.txt').unlink(); (root/'training'/'image_2'/'000002.png').unlink()
    (root/'training'/'image_2'/'000003.png').write_bytes(b'not an image')
    whys = places(load_data(root))
    assert {('no label file', '000001.png'), ('no image', '000002.txt'), ('missing or not an image', '000003.png')} <= whys


def test_truncated_image(tmp_path):
    root = kitti_set(tmp_path, 6); p = root/'training'/'image_2'/'000001.png'
    p.write_bytes(p.read_bytes()[:900])
    ds, notes = load_data(root), []
    frames = to_frames(ds.train, (64, 128), notes)
    assert len(frames) == len(ds.train) - 1 and notes[0].where.endswith('000001.png') and notes[0].why == 'does not decode'
    with pytest.raises(LayerscaleError, match='not a whole image'): to_frames(ds.train, (64, 128))


@pytest.mark.parametrize('make, words', [
    (lambda p: p/'nothing', 'no such folder or file'),
    (lambda p: (p/'training').mkdir() or p, 'no such folder; it should hold'),
    (lambda p: (p/'training'/'image_2').mkdir(parents=True) or p, 'the folder is empty'),
    (lambda p: (p/'odd').mkdir() or p, 'none of the layouts known'),
    (lambda p: (p/'data.yaml').write_text('names: [a]\n') and p, "no 'train' entry"),
    (lambda p: (p/'data.yaml').write_text('train: images/x\nval: images/x\n') and p, "no 'names'"),
])
def test_folders(tmp_path, make, words):
    with pytest.raises(LayerscaleError, match=words): load_data(make(tmp_path))


def test_yolo_outlines_are_boxes(tmp_path):
    "A set made for segmentation: class and points in turn. A sixth number that belongs to no point is refused."
    root = yolo_set(tmp_path)
    (root/'labels'/'train'/'0.txt').write_text('0 .4 .5 .5 .4 .6 .5 .5 .7\n0 .5 .5 .2 .4 .93\n0 .2 .2 .4 .4 .6\n')
    ds = load_data(root)
    size = np.array(ds.train[0].size[::-1]*2)
    np.testing.assert_allclose(ds.train[0].boxes, [np.array([.4, .4, .6, .7])*size], atol=1e-3)
    where = {w: why for why, w in places(ds)}
    assert where['0.txt:2'] == where['0.txt:3'] == 'neither five numbers nor an outline'


def test_yolo_bad_lines(tmp_path):
    root = yolo_set(tmp_path)
    (root/'labels'/'train'/'0.txt').write_text('7 .5 .5 .1 .1\n0 .5 .5 0 .1\n0 nan .5 .1 .1\n0 .5\n0 .95 .5 .2 .2\n0 .5 .5 .1 .1\n')
    where = {w: why for why, w in places(load_data(root))}
    assert where['0.txt:1'].startswith('unknown class 7') and where['0.txt:2'] == 'no area' and where['0.txt:3'] == 'not finite'
    assert where['0.txt:4'] == 'neither five numbers nor an outline' and where['0.txt:5'] == 'partly outside'
    assert len(load_data(root).train[0].boxes) == 2


def test_yolo_background_is_kept(tmp_path):
    root = yolo_set(tmp_path); (root/'labels'/'train'/'2.txt').unlink()
    ds = load_data(root)
    assert [len(x.cls) for x in ds.train] == [2, 2, 0, 2]


def test_yolo_names_as_dict_and_lists(tmp_path):
    root = yolo_set(tmp_path)
    (root/'train.txt').write_text('\n'.join(f'images/train/{i}.jpg' for i in range(2)))
    (root/'data.yaml').write_text('path: .\ntrain: train.txt\nval: [images/val]\nnames: {0: cat, 1: dog}\n')
    ds = load_data(root)
    assert len(ds.train) == 2 and ds.names == ('cat', 'dog') and len(ds.val) == 4


def test_names_go_by_their_number(tmp_path):
    root = yolo_set(tmp_path)
    (root/'data.yaml').write_text('train: images/train\nval: images/val\nnames: {1: dog, 0: cat}\n')
    assert load_data(root).names == ('cat', 'dog')
    for bad in ('names: {1: dog, 2: cat}', 'names: car', 'names: 3', 'nc: two'):
        (root/'data.yaml').write_text(f'train: images/train\nval: images/val\n{bad}\n')
        with pytest.raises(LayerscaleError, match='names'): load_data(root)
    (root/'data.yaml').write_text('- a\n')
    with pytest.raises(LayerscaleError, match='expected "key: value" lines'): load_data(root)


def test_a_yolo_folder_as_roboflow_and_windows_write_it(tmp_path):
    "../train/images, subfolders, a BOM, data.yml, another yaml beside it, the same split twice."
    root = yolo_set(tmp_path)
    (root/'images'/'train'/'0.jpg').rename((root/'images'/'train'/'city').mkdir() or root/'images'/'train'/'city'/'0.jpg')
    (root/'labels'/'train'/'0.txt').rename((root/'labels'/'train'/'city').mkdir() or root/'labels'/'train'/'city'/'0.txt')
    (root/'labels'/'train'/'1.txt').write_bytes(b'\xef\xbb\xbf0 .5 .5 .4 .4\r\n9 .5 .5 .1 .1\r\n')
    (root/'data.yaml').unlink(); (root/'args.yaml').write_text('epochs: 3\n')
    (root/'data.yml').write_text('train: ../images/train\nval: ../images/train\nnames: [cat, dog]\n')
    ds = load_data(root)
    assert sorted(len(x.cls) for x in ds.train) == [1, 2, 2, 2]
    assert len(ds.notes) == 5 and sum(n.why == 'in neither split' for n in ds.notes) == 4  # images/val, which nothing names


def test_two_images_of_one_name_are_a_sentence(tmp_path):
    root = yolo_set(tmp_path); picture(root/'images'/'train'/'0.png')
    with pytest.raises(LayerscaleError, match='0.jpg in the same folder has the same name'): load_data(root)


def test_sixteen_bits_and_fractions(tmp_path):
    deep = (np.arange(3000).reshape(50, 60)*20).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path/'a.png'); Image.fromarray(deep).save(tmp_path/'a.tif'); Image.fromarray((deep/60000).astype(np.float32)).save(tmp_path/'f.tif')
    for name in ('a.png', 'a.tif'): np.testing.assert_array_equal(read_image(tmp_path/name)[..., 1], deep >> 8)
    with pytest.raises(LayerscaleError, match='its pixels are fractions'): read_image(tmp_path/'f.tif')


@pytest.mark.parametrize('end', ['jpg', 'png', 'tif', 'webp'])
def test_turned_images_have_one_size(tmp_path, end):
    im, exif = Image.fromarray(np.zeros((60, 100, 3), np.uint8)), Image.Exif()
    exif[274] = 6
    im.save(tmp_path/f'a.{end}', exif=exif)
    assert image_size(tmp_path/f'a.{end}') == read_image(tmp_path/f'a.{end}').shape[:2] == (100, 60)


def voc_set(root, names, splits):
    (root/'Annotations').mkdir(); (root/'ImageSets'/'Main').mkdir(parents=True)
    for n in names:
        picture(root/'JPEGImages'/f'{n}.jpg')
        (root/'Annotations'/f'{n}.xml').write_text('<a><object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>40</ymax></bndbox></object></a>')
    for k, v in splits.items(): (root/'ImageSets'/'Main'/f'{k}.txt').write_text('\n'.join(v))
    return root


def test_voc_names_with_spaces_and_trainval(tmp_path):
    ds = load_data(voc_set(tmp_path, ('a 1', 'a 2', 'b'), dict(trainval=('a 1', 'a 2'), test=('b  1',))))
    assert [x.id for x in ds.train] == ['a 1', 'a 2'] and [x.id for x in ds.val] == ['b'] and ds.notes == ()


def test_an_unreadable_label_is_no_empty_scene(tmp_path):
    root = voc_set(tmp_path, 'abc', dict(train='ab', val='c')); (root/'Annotations'/'b.xml').write_text('<a><object>')
    ds = load_data(root)
    assert [x.id for x in ds.train] == ['a'] and places(ds) == {('label not readable as XML', 'b.xml')}


def test_a_sliver_can_be_letterboxed():
    assert letterbox(np.zeros((2000, 1, 3), np.uint8), (96, 320))[0].shape == (96, 320, 3) and letterbox(np.zeros((1, 2000, 3), np.uint8), (96, 320))[0].shape == (96, 320, 3)


def test_ultralytics_name_without_network():
    with pytest.raises(LayerscaleError) as e: load_data('no_such_set.yaml')
    assert 'Traceback' not in str(e.value) and '\n' not in str(e.value)


def test_real_kitti(kitti_root):
    ds = load_data(kitti_root)
    assert (len(ds.train), len(ds.val)) == (514, 627) and ds.names == ('car', 'pedestrian', 'cyclist')
    assert int(dataset_summary(ds).loc['all', ['train boxes', 'val boxes']].sum()) == 7844 - 1  # one box is thinner than a pixel
    assert {x.size for x in ds.train + ds.val} == {(375, 1242), (370, 1224), (374, 1238)}
    assert natural_size(ds, 416) == (128, 416) and natural_size(ds) == (192, 640)
    frames = to_frames(ds.train[:20], (128, 416))
    assert frames.images.shape == (20, 128, 416, 3) and frames.images.std() > 20
    assert contact_sheet(ds, 4, 2).size[0] > 700


def test_real_bccd(bccd_root):
    ds = load_data(bccd_root)
    assert ds.names == ('Platelets', 'RBC', 'WBC') and (len(ds.train), len(ds.val)) == (205, 87)
    boxes = [n for n in ds.notes if n.kind.startswith('box')]
    assert len(boxes) >= 2 and all('.xml: object' in n.where for n in boxes)
    assert sum(n.why == 'in neither split' for n in ds.notes) == 72 == len(ds.notes) - len(boxes)  # test.txt's
