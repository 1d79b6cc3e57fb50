"""What is typed reaches the function of the library, and its answer the user."""

import inspect
import json
import shlex
from importlib import import_module

import pytest

from tests.cli.conftest import HOMES
from unetkit.cli.app import main
from unetkit.options import declared, parameters_of

# What is typed, and the same call in Python.
CALLS = """
import s3://a/b c.zarr --labels masks/{stem}_m.png --kind classes --classes background,axon
    --ignore 255 --judged roi --judged 0:9,0:9 --outlines corners --overlaps smaller
    --group (.+)_ --scene Top --axes zyx --channels DAPI,2 --pixel-size 0.25um --append
    --damaged fill --preview a.png
-> 's3://a/b', 'c.zarr', labels='masks/{stem}_m.png', kind='classes', classes='background,axon',
    ignore=255, judged=('roi', '0:9,0:9'), outlines='corners', overlaps='smaller', group='(.+)_',
    scene='Top', axes='zyx', channels='DAPI,2', pixel_size='0.25um', append=True,
    preview='a.png', damaged='fill'

import a c.zarr --labels b --kind instances+classes --object-classes d/{stem}_c.png
-> 'a', 'c.zarr', labels='b', kind='instances+classes', object_classes='d/{stem}_c.png'

import a c.zarr --labels b --connected-components --overwrite --require-complete-input
-> 'a', 'c.zarr', labels='b', connected_components=True, overwrite=True,
    require_complete_input=True

augment a.zarr c.zarr --copies 3 --grid 5 --sigma 2.5um --shift 0 --rotation 90 --no-flips --grey
    0.5 --allow-folds --replay b.zarr/a-aug001 --axes zyx --seed 7 --preview a.png --scheduler
    local:2 --workers 2 --overwrite
-> 'a.zarr', 'c.zarr', copies=3, grid=5, sigma='2.5um', shift=0.0, rotation=90.0, flips=False,
    grey=0.5, allow_folds=True, replay='b.zarr/a-aug001', axes='zyx', seed=7, preview='a.png',
    scheduler='local:2', workers=2, overwrite=True

remove a.zarr s1 s2
-> 'a.zarr', 's1', 's2'

weights a.zarr --preset freiburg2019 --w0 50 --sigma 6 --target boundary --report --preview a.png
    --labels cells --scheduler sync --workers 2 --overwrite --break-lock
-> 'a.zarr', preset='freiburg2019', w0=50.0, sigma='6', target='boundary', report=True,
    preview='a.png', labels='cells', scheduler='sync', workers=2, overwrite=True,
    break_lock=True

weights a.zarr --resume
-> 'a.zarr', resume=True

train a.zarr -o m.safetensors --model keras-unet --set width=16 --set depth=3 --recipe paper
    --recipe-set batch=4 --recipe-set grey=0 --loss unet+0.5*dice --steps 5 --time-budget 20m
    --target boundary --init i.safetensors --folds 5 --tensorboard runs --normalization zscore
    --freeze-encoder 9 --seed 3 --channels 0,2 --labels a=classes --axes zyx --device cuda:1
    --precision exact --workers 0 --nonfinite fill --accumulate 2 --resume --keep-state --overwrite
    --break-lock --pixel-size 0.5
-> 'a.zarr', output='m.safetensors', model='keras-unet', options=('width=16', 'depth=3'),
    recipe='paper', recipe_set=('batch=4', 'grey=0'), loss='unet+0.5*dice', steps=5,
    time_budget='20m', target='boundary', init='i.safetensors', folds=5, tensorboard='runs',
    normalization='zscore', freeze_encoder=9, seed=3, channels='0,2', labels='a=classes',
    axes='zyx', device='cuda:1', precision='exact', workers=0, nonfinite='fill', accumulate=2,
    resume=True, keep_state=True, overwrite=True, break_lock=True, pixel_size='0.5'

tile-predict a.zarr --model a.st --model b.st --output p.zarr --tile 384 --overlap 92 --tta flips
    --merge gaussian --probabilities float32 --threshold 0.25 --grow 0 --min-size 9 --skip-below
    1.5 --separate watershed --seed-level 0.8 --seed-size 30 --mask m.zarr --require-complete-input
    --strict --channels DAPI --axes zyx --device cpu --precision bfloat16 --batch 4 --max-memory 8G
    --scheduler tcp://localhost:8786 --workers 2 --nonfinite fill --overwrite --break-lock
    --dry-run --audit 8 --ome-version 0.4 --overview o.png --pixel-size 250nm
    --no-rescale --scale 0.5 --at model --in-place --uncertainty
-> 'a.zarr', model=('a.st', 'b.st'), output='p.zarr', tile=384, overlap=92, tta='flips',
    merge='gaussian', probabilities='float32', threshold=0.25, grow=0, min_size=9, skip_below=1.5,
    separate='watershed', seed_level=0.8, seed_size=30, mask='m.zarr', require_complete_input=True,
    strict=True, channels='DAPI', axes='zyx', device='cpu', precision='bfloat16', batch=4,
    max_memory='8G', scheduler='tcp://localhost:8786', workers=2, nonfinite='fill',
    overwrite=True, break_lock=True, dry_run=True, audit=8, ome_version='0.4', overview='o.png',
    pixel_size='250nm', no_rescale=True, scale=0.5, at='model',
    in_place=True, uncertainty=True

tile-predict a.zarr --model a.st --resume
-> 'a.zarr', model=('a.st',), resume=True

tune a.st b.st a.zarr -o c.safetensors --channels 0,2 --labels cells --device cpu --overwrite
    --scales 0.75,0.5
-> 'a.st', 'b.st', 'a.zarr', output='c.safetensors', channels='0,2', labels='cells', device='cpu',
    overwrite=True, scales='0.75,0.5'

eval a.zarr --truth t.zarr --labels cells --borders --tolerance 3 --bootstrap 10 --seed 4
    --objects o.csv --report r.html --overwrite --resume --break-lock --axes zyx --scheduler sync
    --workers 2
-> 'a.zarr', truth='t.zarr', labels='cells', borders=True, tolerance=3.0, bootstrap=10,
    seed=4, objects='o.csv', report='r.html', overwrite=True, resume=True, break_lock=True,
    axes='zyx', scheduler='sync', workers=2

measure a.zarr b.zarr --csv c.csv --region t.zarr --rim touch --labels cells --axes zyx --pixel-size
    0.5um --scheduler sync --workers 2 --overwrite
-> 'a.zarr', 'b.zarr', csv='c.csv', region='t.zarr', rim='touch', labels='cells', axes='zyx',
    pixel_size='0.5um', scheduler='sync', workers=2, overwrite=True

view a.zarr b.zarr t.zarr --image b.zarr --sample one --channels DAPI,2 --axes zyx --points t.zarr
    --png a.png --overwrite
-> 'a.zarr', 'b.zarr', 't.zarr', image='b.zarr', sample='one', channels='DAPI,2', axes='zyx',
    points='t.zarr', png='a.png', overwrite=True

view a.zarr --open --annotations drawn.geojson
-> 'a.zarr', open_page=True, annotations='drawn.geojson'

view a.zarr --napari
-> 'a.zarr', napari=True

review a.zarr --count 50 --seed 3 --image b.zarr --channels DAPI,2 --labels cells --axes zyx
    -o r.html --overwrite --scheduler sync --workers 2
-> 'a.zarr', count=50, seed=3, image='b.zarr', channels='DAPI,2', labels='cells', axes='zyx',
    output='r.html', overwrite=True, scheduler='sync', workers=2

curve a.zarr --time-budget 2h --steps 9 --more 8 --draws 4 -o c.html --model keras-unet
    --set width=4 --recipe paper --recipe-set batch=4 --loss ce --target boundary
    --init i.safetensors --seed 3 --channels 0,2 --labels cells --axes zyx --device cpu
    --precision exact --workers 0 --nonfinite fill --overwrite --break-lock
-> 'a.zarr', time_budget='2h', steps=9, more=8, draws=4, output='c.html', model='keras-unet',
    options=('width=4',), recipe='paper', recipe_set=('batch=4',), loss='ce', target='boundary',
    init='i.safetensors', seed=3, channels='0,2', labels='cells', axes='zyx', device='cpu',
    precision='exact', workers=0, nonfinite='fill', overwrite=True, break_lock=True

curve a.zarr --resume
-> 'a.zarr', resume=True

suggest a.zarr --count 9 --window 128 --judged 0:9,3:8 --judged b.zarr --image b.zarr
    --channels DAPI -o s.csv --geojson s.geojson --sheet s.png --overwrite --scheduler sync
    --workers 2
-> 'a.zarr', count=9, window=128, judged=('0:9,3:8', 'b.zarr'), image='b.zarr',
    channels='DAPI', output='s.csv', geojson='s.geojson', sheet='s.png', overwrite=True,
    scheduler='sync', workers=2

review a.zarr --score t.zarr --region b.zarr
-> 'a.zarr', score='t.zarr', region='b.zarr'

train a.zarr b.zarr t.zarr --init i.safetensors --mix 0.3 --keep-old
-> 'a.zarr', 'b.zarr', 't.zarr', init='i.safetensors', mix=0.3, keep_old=True

correct a.zarr --from b.zarr --judged seen --judged 0:9,0:9 -o c.zarr --context 8 --image t.zarr
    --channels DAPI,2 --axes zyx --labels cells --connected-components --outlines centres
    --overlaps refuse --append --preview a.png
-> 'a.zarr', edited='b.zarr', judged=('seen', '0:9,0:9'), output='c.zarr', context=8,
    image='t.zarr', channels='DAPI,2', axes='zyx', labels='cells', connected_components=True,
    outlines='centres', overlaps='refuse', append=True, preview='a.png'

correct a.zarr --from b.zarr --judged seen --overwrite
-> 'a.zarr', edited='b.zarr', judged=('seen',), overwrite=True

export a.zarr --to geojson -o cells.json --layer classes --labels a=classes --axes zyx --overwrite
-> 'a.zarr', to='geojson', output='cells.json', layer='classes', labels='a=classes',
    axes='zyx', overwrite=True

export a.zarr --to coco -o a.json --layer instances --labels cells --axes yx --overwrite
-> 'a.zarr', to='coco', output='a.json', layer='instances', labels='cells', axes='yx',
    overwrite=True

info a.zarr
-> 'a.zarr'

info m.safetensors --card --author 'A, B' --author C --license MIT
-> 'm.safetensors', card=True, author=('A, B', 'C'), license='MIT'

verify a.zarr
-> 'a.zarr'

demo 'my demo' --seed 2 --overwrite
-> 'my demo', seed=2, overwrite=True

models
->

models show unet --set depth=3
-> 'unet', options=('depth=3',)

models check unet --set depth=3
-> 'unet', options=('depth=3',)

models export m.safetensors --to onnx -o m.onnx --size 64 --overwrite
-> 'm.safetensors', to='onnx', output='m.onnx', size=64, overwrite=True

models export m.safetensors --to bioimageio --sample a.zarr --name nuclei --author 'A, B' --author C
    --license MIT
-> 'm.safetensors', to='bioimageio', sample='a.zarr', name='nuclei', author=('A, B', 'C'),
    license='MIT'

plugins
->

plugins new folder
-> 'folder'
"""
# As little as may be typed.
LEAST = ["import images c.zarr", "augment a.zarr c.zarr", "weights a.zarr", "train a.zarr"]
LEAST += ["tile-predict a.zarr --model a.st", "eval a.zarr b.zarr", "measure a.zarr"]
LEAST += ["correct a.zarr --from b.zarr --judged seen", "view a.zarr", "review a.zarr"]
LEAST += ["suggest a.zarr", "export a.zarr", "demo"]
LEAST += ["curve a.zarr"]
LEAST += ["models show unet", "models check unet", "models export model.safetensors"]


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch):
    """Make what is named, since what is not there is refused before any function is called."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.zarr", "b.zarr", "t.zarr", "a.st", "b.st"):
        (tmp_path / name).touch()


class Answer:
    """What any function may answer."""

    output = "a.prediction.zarr"
    holds = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def check(self):
        pass

    def wait(self):
        pass

    def to_dict(self):
        return {"output": self.output, "tiles_total": 4, "output_bytes": 5_000_000}

    def __iter__(self):
        return iter(())


def heard(typed, monkeypatch, answer=None):
    """Run what is typed, and return which function is called with what."""
    words = shlex.split(typed)
    home = HOMES.get(" ".join(words[:2])) or HOMES[words[0]]
    module, _, name = home.partition(":")
    calls = []
    signature = inspect.signature(getattr(import_module(module), name))

    def record(*values, **options):
        assert ("progress" in options) == ("progress" in signature.parameters)
        options.pop("progress", None)
        calls.append((values, options))
        return Answer() if answer is None else answer

    record.__signature__ = signature
    monkeypatch.setattr(f"{module}.{name}", record)
    assert main(words) == 0
    ((values, options),) = calls
    return home, values, options


def plain(typed):
    """Return an answer for what shows it as it is."""
    listing = {"models": [], "plugins": [], "info": {}}
    return (
        {}
        if typed.startswith(("models show", "info m"))
        else listing.get(typed.split(" a.zarr")[0])
    )


@pytest.mark.parametrize("call", CALLS.strip().split("\n\n"))
def test_what_is_typed_arrives(call, monkeypatch):
    typed, told = (" ".join(part.split()) for part in call.split("->"))
    home, *called = heard(f"{typed} --json", monkeypatch, plain(typed))
    values, named = eval(f"call({told})", {"call": lambda *values, **named: [values, named]})
    expected = {name: named.get(name, default) for name, default in defaults(home).items()}
    assert called == [values, expected]
    assert repr(called[1].values()) == repr({n: expected[n] for n in called[1]}.values())


def test_every_option_is_typed():
    for words, home in HOMES.items():
        calls = [call for call in CALLS.split("\n\n") if call.strip().startswith(words)]
        for name in defaults(home):
            assert any(f"{name}=" in call for call in calls), (words, name)


def defaults(home):
    """Return the defaults of a function's options by name."""
    options = parameters_of(declared(home))
    return {n: o.default for n, o in options.items() if not o.is_argument and n != "progress"}


@pytest.mark.parametrize("typed", LEAST)
def test_what_is_left_out_is_as_for_the_function(typed, monkeypatch):
    home, _, options = heard(f"{typed} --json", monkeypatch, plain(typed))
    expected = defaults(home)
    if "model" in expected and "--model" in typed:
        expected["model"] = ("a.st",)
    if "sigma" in expected:
        # What has a unit or none is handed over as a text.
        options["sigma"] = options["sigma"] and float(options["sigma"])
    # What must be given is left out by nobody.
    needed = {n for n, default in expected.items() if default is inspect.Parameter.empty}
    assert {n: v for n, v in options.items() if n not in needed} == {
        n: v for n, v in expected.items() if n not in needed
    }


@pytest.mark.parametrize("home", HOMES.values())
def test_the_signature_that_is_read_is_that_of_the_function(home):
    """No module of a command is loaded for its options: they are read off its text."""
    module, _, name = home.partition(":")
    function = getattr(import_module(module), name)
    read = declared(home)
    assert inspect.getdoc(read) == inspect.getdoc(function)
    theirs = inspect.signature(function)
    assert inspect.signature(read) == theirs.replace(return_annotation=inspect.Signature.empty)
    for option in parameters_of(read).values():
        if option.name != "progress":
            assert option.meaning.endswith("."), option.name


def test_a_plan_is_shown_and_no_path(monkeypatch, capsys):
    heard("tile-predict a.zarr --model a.st --dry-run", monkeypatch)
    assert capsys.readouterr().out.splitlines() == [
        "output        a.prediction.zarr",
        "tiles total   4",
        "output bytes  4.77 MiB",
    ]
    heard("tile-predict a.zarr --model a.st --dry-run --json", monkeypatch)
    assert json.loads(capsys.readouterr().out) == Answer().to_dict()
    heard("tile-predict a.zarr --model a.st", monkeypatch)
    assert capsys.readouterr().out == "a.prediction.zarr\n"


class Walked:
    output = "my demo"

    def to_dict(self):
        return {"output": self.output, "scores": [], "pictures": [], "commands": ["unetkit info x"]}


def test_the_demo_prints_its_folder_and_tells_the_rest(monkeypatch, capsys):
    assert heard("demo", monkeypatch, Walked())[1] == ("unetkit-demo",)
    out, err = capsys.readouterr()
    assert out == "my demo\n"
    assert "  unetkit info x\n" in err
    heard("demo --quiet", monkeypatch, Walked())
    assert capsys.readouterr() == ("my demo\n", "")
