import functools
import math
from dataclasses import dataclass, replace
import cv2
import numpy as np

SCENE_CLASSES = ('car', 'van', 'truck', 'pedestrian', 'cyclist')

@dataclass(frozen=True)
class Scene:
    "One picture with its labels"
    image: np.ndarray      # (h, w, 3) uint8 RGB
    boxes: np.ndarray      # (k, 4) float32, xyxy pixels, clipped to the image
    cls: np.ndarray        # (k,) int64, index into SCENE_CLASSES
    occluded: np.ndarray   # (k,) float32, share hidden by nearer things
    truncated: np.ndarray  # (k,) float32, share of the full box outside the image

@dataclass(frozen=True)
class SceneStyle:
    "The knobs that make scenes easy or hard"
    users: tuple = (5, 10)    # road users tried per image: from, up to (not included)
    shares: tuple = (.40, .13, .12, .20, .15)  # chance of each class
    depth: tuple = (4.5, 30.) # nearest and farthest road user, metres
    night: float = .15        # share of night scenes
    dusk: float = .2          # share of dusk scenes
    noise: float = 5.         # sensor noise, grey levels
    blur: float = .6          # largest extra blur, pixels
    crowd: float = .4         # largest overlap of two boxes, share of the smaller
    hidden: float = .7        # hidden or cut off beyond this share: not labelled
    min_height: float = 7.    # lower boxes are not labelled, pixels

@dataclass(frozen=True)
class Camera:
    "A pinhole camera that looks along the road: x right, y up, z ahead"
    width: int           # pixels
    height: int          # pixels
    above: float = 1.65  # metres above the road
    focal = property(lambda self: .581*self.width)
    horizon = property(lambda self: .46*self.height)
    def project(self, points):
        "Metres (n, 3) to pixels (n, 2) and pixels per metre (n,)"
        scale = self.focal/np.maximum(points[:, 2], .6)
        u, v = self.width/2 + points[:, 0]*scale, self.horizon + (self.above - points[:, 1])*scale
        return np.stack([u, v], 1), scale

@dataclass(frozen=True)
class Light:
    "What lights a scene"
    ambient: tuple              # RGB gain of daylight
    top: tuple                  # sky overhead
    low: tuple                  # sky at the horizon, and the colour of haze
    beam: float = 0.            # gain of our own headlights
    lamps: bool = False         # do lamps shine?
    sun: tuple = (.4, .6, -.5)  # direction towards the sun

LIGHTS = dict(day=Light((1., 1., 1.), (92, 148, 222), (222, 232, 242)),
              grey=Light((.86, .88, .92), (168, 178, 190), (214, 218, 222)),
              dusk=Light((.66, .56, .56), (62, 74, 130), (246, 176, 122), .15, True),
              night=Light((.3, .32, .42), (8, 10, 26), (34, 36, 58), .6, True))

def shade(rgb, normal, depth, light):
    "Colours `rgb` (..., 3) after sun, headlights and haze at `depth` metres"
    gain = np.float32(light.ambient) + np.float32(light.beam*np.exp(-depth/14))[..., None]
    sun = np.float32(1 + .3*np.clip(normal @ light.sun, -.8, .5))[..., None]
    clear = np.float32(np.exp(-np.minimum(depth, 70)/150))[..., None]
    return rgb*(gain*sun*clear) + np.float32(light.low)*(1 - clear)

@dataclass(frozen=True, slots=True)
class Part:
    "A flat face, or a round limb along its points if it has a radius"
    points: np.ndarray   # (n, 3) metres, in the frame of its thing
    rgb: tuple           # 0 to 255
    radius: float = 0.   # metres
    glow: bool = False   # shines when lamps are on
    group: int = 0       # the groups of a thing are painted far to near

@dataclass(frozen=True)
class Thing:
    "Parts that stand somewhere on the ground"
    parts: list
    size: tuple = (1., 1., 1.)  # width, height, length in metres
    cls: int = -1               # index into SCENE_CLASSES, -1: never labelled
    x: float = 0.               # metres to the right
    z: float = 10.              # metres ahead
    yaw: float = 0.             # radians, 0: seen from behind

def gather(things):
    "All parts of all things, their corners in the world, corners per part, owner of each part"
    parts = [p for t in things for p in t.parts]
    count = np.array([len(p.points) for p in parts])
    owner = np.repeat(np.arange(len(things)), [len(t.parts) for t in things])
    x, y, z = np.concatenate([p.points for p in parts]).T
    at, to, yaw = np.array([(t.x, t.z, t.yaw) for t in things]).T[:, np.repeat(owner, count)]
    c, s = np.cos(yaw), np.sin(yaw)
    return parts, np.stack([x*c + z*s + at, y, z*c - x*s + to], 1), count, owner

def normals(world, first, centre):
    "Unit normals (n, 3) of faces that begin at corners `first`, pointing away from `centre`"
    a, b, c = (world[np.minimum(first + i, len(world) - 1)] for i in range(3))
    u, v, w = (b - a).T, (c - a).T, (2, 0, 1)
    n = (u[[1, 2, 0]]*v[[2, 0, 1]] - u[[2, 0, 1]]*v[[1, 2, 0]]).T
    n *= np.where(((a - centre)*n).sum(1) < 0, -1, 1)[:, None]
    return n/(np.sqrt((n*n).sum(1)) + 1e-9)[:, None]

def stroke(canvas, part, xy, thick, colour):
    "Draw one part at corners `xy`, in 1/16 pixel"
    if part.radius: cv2.polylines(canvas, [xy], False, colour, thick, shift=4)
    else: cv2.fillPoly(canvas, [xy], colour, shift=4)

def paint(canvas, things, camera, light):
    "Paint far to near, ids in channel 3; full boxes (k, 4) and own pixels (k,) of the things"
    parts, world, count, owner = gather(things)
    first, k = np.cumsum(count) - count, np.arange(len(things))
    start = first[np.searchsorted(owner, k)]
    (uv, scale), radius = camera.project(world), np.array([p.radius for p in parts])
    pad = (np.repeat(radius, count)*scale)[:, None]
    boxes = np.hstack([np.minimum.reduceat(uv - pad, start), np.maximum.reduceat(uv + pad, start)])
    middle = (np.minimum.reduceat(world, start) + np.maximum.reduceat(world, start))/2
    depth, normal = np.add.reduceat(world[:, 2], first)/count, normals(world, first, middle[owner])
    seen = (radius > 0) | ((normal*(world[first] - (0, camera.above, 0))).sum(1) < 1e-6)
    rgb = shade(np.float32([p.rgb for p in parts]), normal*(radius == 0)[:, None], depth, light)
    rgb, xy = np.clip(rgb, 0, 255).tolist(), np.clip(uv*16, -2e5, 2e5).astype(np.int32)
    thick = np.clip(2*radius*camera.focal/np.maximum(depth, .6) + .5, 1, 255).astype(int).tolist()
    key = owner*8 + np.array([p.group for p in parts])
    order, own = np.argsort(-(np.bincount(key, depth)/np.maximum(np.bincount(key), 1))[key], kind='stable'), np.zeros(len(things))
    for t in np.argsort([-t.z for t in things], kind='stable'):
        ident = int(t + 1)*(things[t].cls >= 0)
        for i in order[(owner[order] == t) & seen[order]]:
            colour = parts[i].rgb if parts[i].glow and light.lamps else rgb[i]
            stroke(canvas, parts[i], xy[first[i]:first[i] + count[i]], thick[i], (*colour, ident))
        if ident: own[t] = (canvas[..., 3] == ident).sum()
    return boxes, own

@functools.lru_cache(4096)
def weights(u0, u1, v0, v1):
    "Bilinear weights (4, 4) of a sub-rectangle: shares u0..u1 across, v0..v1 up"
    return np.array([[(1 - u)*(1 - v), u*(1 - v), u*v, (1 - u)*v] for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))])

def patch(quad, u0, u1, v0, v1):
    "The sub-rectangle of a face with four corners (4, 3)"
    return weights(u0, u1, v0, v1) @ quad

CUBE = np.array([[(-1, 0, -1), (1, 0, -1), (1, 1, -1), (-1, 1, -1)], [(1, 0, 1), (-1, 0, 1), (-1, 1, 1), (1, 1, 1)],
    [(-1, 0, 1), (-1, 0, -1), (-1, 1, -1), (-1, 1, 1)], [(1, 0, -1), (1, 0, 1), (1, 1, 1), (1, 1, -1)],
    [(-1, 1, -1), (1, 1, -1), (1, 1, 1), (-1, 1, 1)]])*(.5, 1, .5)

def box(width, height, length, y=0., z=0.):
    "Rear, front, left, right and top face of a box in metres: (5, 4, 3)"
    return CUBE*(width, height, length) + (0, y, z)

@functools.lru_cache(8)
def ring(n):
    "A unit circle (n + 1, 3) in the plane x = 0"
    t = np.linspace(0, 2*math.pi, n + 1)
    return np.stack([0*t, np.sin(t), np.cos(t)], 1)

PAINTS = ((206, 208, 212), (150, 154, 160), (60, 62, 68), (28, 28, 32), (170, 30, 34), (38, 66, 128), (120, 146, 178),
          (44, 86, 66), (214, 176, 70), (236, 236, 234))
GLASS, DARK, TYRE, HUB = (52, 66, 80), (34, 34, 38), (22, 22, 24), (142, 142, 146)
TAIL, HEAD, PLATE = (214, 36, 30), (255, 244, 214), (232, 230, 214)

def wheels(width, ends, radius, group=0):
    "Tyre and hub on both sides at each z in `ends`"
    return [Part(ring(10)[:-1]*r + (s*width*(.5 + .01*(rgb is HUB)), radius, z), rgb, group=group) for s in (-1, 1) for z in ends
            for r, rgb in ((radius, TYRE), (.6*radius, HUB))]

PROFILES = dict(  # (z, y) in shares of length and height, from the rear bumper over the roof to the front
    hatch=((-.49, .16), (-.5, .5), (-.47, .6), (-.36, .98), (.04, 1.), (.26, .62), (.46, .5), (.5, .16)),
    saloon=((-.49, .16), (-.5, .56), (-.34, .62), (-.2, .97), (.05, 1.), (.24, .62), (.47, .5), (.5, .16)),
    estate=((-.49, .16), (-.5, .5), (-.49, .6), (-.43, .98), (.06, 1.), (.26, .62), (.46, .54), (.5, .16)),
    van=((-.5, .13), (-.5, .4), (-.5, .52), (-.48, .98), (.2, 1.), (.35, .58), (.48, .46), (.5, .13)),
    cab=((-.5, .12), (-.5, .3), (-.5, .5), (-.48, 1.), (.3, 1.), (.46, .5), (.5, .44), (.5, .12)))

def lamps(rear, front):
    "Bumpers, lamps, plates and a grille as (corners, colour, glow)"
    rows = [(patch(q, 0, 1, 0, .25), DARK, False) for q in (rear, front)] + [(patch(front, .26, .74, .56, .8), DARK, False)]
    for q, rgb, v in ((rear, TAIL, .92), (front, HEAD, .85)):
        rows += [(patch(q, u, u + .18, v - .32, v), rgb, True) for u in (.03, .79)] + [(patch(q, .36, .64, .3, .5), PLATE, False)]
    return rows

def shell(profile, size, rgb, panes, z=0., group=0):
    "Bodywork: a side profile made wide, with glass, sills and lamps"
    side = np.array(PROFILES[profile])*(size[2], size[1])
    half = size[0]/2*(1 - .35*np.clip(side[:, 1]/size[1] - .58, 0, 1))
    left, right = (np.stack([s*half, side[:, 1], side[:, 0] + z], 1) for s in (-1, 1))
    quads = [np.stack([left[i], right[i], right[j], left[j]]) for i, j in ((0, 1), (1, 2), (2, 3), (3, 4), (5, 4), (6, 5), (7, 6))]
    rows = [(q, rgb, False) for q in (left, right, *quads)] + [(patch(quads[i], .07, .93, .1, .88), GLASS, False) for i in (2, 4)]
    for s in (left, right):
        rows += [(patch(s[[2, 5, 4, 3]], a, b, .12, .84), GLASS, False) for a, b in panes]
        rows += [(s[[0, 7, 6, 1]]*(1, .3, 1) + (0, .12*size[1], 0), tuple(.55*c for c in rgb), False)]
    return [Part(q, c, glow=g, group=group) for q, c, g in rows + lamps(quads[0], quads[6])]

def pick(rng, table):
    "A random row of a table"
    return table[rng.integers(len(table))]

def car(rng):
    "A hatchback, saloon or estate car"
    size = w, h, l = tuple(rng.uniform((1.62, 1.38, 3.6), (1.85, 1.66, 4.7)))
    body = shell(pick(rng, ('hatch', 'saloon', 'estate')), size, pick(rng, PAINTS), ((.06, .46), (.52, .93)))
    return Thing(body + wheels(w, (-.3*l, .31*l), .31), size, 0)

def van(rng):
    "A van, with or without rear side windows"
    size = w, h, l = tuple(rng.uniform((1.8, 1.85, 4.5), (2.05, 2.4, 5.6)))
    panes = pick(rng, (((.72, .95),), ((.05, .33), (.38, .66), (.72, .95))))
    return Thing(shell('van', size, pick(rng, PAINTS), panes) + wheels(w, (-.31*l, .33*l), .34), size, 1)

def truck(rng):
    "A cab with a tall box or a low open load bed behind it"
    size = w, h, l = tuple(rng.uniform((2.2, 2.7, 5.6), (2.5, 3.6, 8.5)))
    load, low = pick(rng, PAINTS), rng.random() < .25
    faces, dim = box(w, (h - .9)*(.35 if low else 1), .74*l, .9, -.13*l), tuple(.7*c for c in load)
    cab = shell('cab', (.94*w, rng.uniform(.78, .92)*h, .24*l), pick(rng, PAINTS), ((.35, .85),), .38*l, 1)
    rows = [(f, load) for f in faces] + [(f, DARK) for f in box(.8*w, .5, .74*l, .45, -.13*l)] + [(patch(faces[0], .49, .51, 0, 1), DARK)]
    rows += [(patch(f, u, u + .02, 0, 1), dim) for f in faces[2:4] for u in (.25, .5, .75)]
    back = [Part(patch(faces[0], u, u + .14, -.12, -.03), TAIL, glow=True) for u in (.02, .84)]
    axles = wheels(w, (-.38*l, -.22*l), .48) + wheels(w, (.36*l,), .48, 1)
    return Thing(cab + [Part(*r) for r in rows] + back + axles, size, 2)

CLOTHES = ((32, 36, 54), (58, 74, 120), (140, 40, 44), (66, 92, 60), (206, 200, 186), (90, 84, 80), (222, 160, 52), (24, 24, 26), (170, 120, 150))
SKIN = ((224, 178, 148), (196, 142, 108), (128, 86, 62))
HAIR = ((40, 30, 24), (92, 62, 36), (176, 142, 86), (120, 118, 116))

def limbs(rows, scale=1.):
    "Round limbs from rows of points, colour, radius; each is its own group, so far ones come first"
    return [Part(np.array(p, float)*scale, rgb, r*scale, group=min(i, 15)) for i, (p, rgb, r) in enumerate(rows)]

def head(rng, y, z):
    "Hair or helmet behind, face in front"
    return [(((0, y + .03, z - .04), (0, y, z - .04)), pick(rng, HAIR + PAINTS[4:6]), .12), (((0, y - .03, z + .04), (0, y - .02, z + .04)), pick(rng, SKIN), .1)]

def pedestrian(rng):
    "Somebody who walks: legs in stride, arms against them, at times a bag"
    k, step, top, legs = rng.uniform(.88, 1.08)*(.7 if rng.random() < .1 else 1), rng.uniform(-.36, .36), pick(rng, CLOTHES), pick(rng, CLOTHES)
    rows = [] if rng.random() < .7 else [(((0, 1.32, -.17), (0, 1.1, -.17)), pick(rng, CLOTHES), .14)]
    for s in (-1, 1):
        hip, knee, foot = (s*.08, .9, 0), (s*.09, .48, s*step*.6 + .05), (s*.09, .06, s*step - .04)
        rows += [((hip, knee, foot), legs, .075), ((foot, (s*.09, .05, s*step + .1)), DARK, .045)]
        rows += [(((s*.2, 1.4, 0), (s*.26, 1.12, -s*step*.5), (s*.25, .88, .08 - s*step*.8)), tuple(.85*c for c in top), .055)]
    rows += [(((-.11, 1.34, 0), (-.09, .95, 0), (.09, .95, 0), (.11, 1.34, 0), (0, 1.32, 0)), top, .105), *head(rng, 1.63, 0)]
    return Thing(limbs(rows, k), (.6, 1.76*k, .6), 3)

def cyclist(rng):
    "A rider who leans over the handlebar, feet somewhere on their turn"
    top, legs, frame, lean, turn = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, PAINTS), rng.uniform(.1, .3), rng.uniform(0, 6.28)
    back, fore, seat, bar, hub = (0, .34, -.52), (0, .34, .54), (0, .92, -.2), (0, .98, .4), (0, .32, 0)
    rows = [(ring(14)*.33 + c, TYRE, .03) for c in (back, fore)] + [((back, seat, hub, back), frame, .025), ((seat, bar, hub), frame, .025)]
    rows += [((bar, fore), frame, .025), (((-.26, 1., .38), (.26, 1., .38)), DARK, .025)]
    for s in (-1, 1):
        foot = np.array((s*.1, .32 + .15*s*math.sin(turn), .15*s*math.cos(turn)))
        rows += [(((s*.1, .95, -.2), (s*.11, .52 + .5*foot[1], .2), foot), legs, .075), ((foot, foot + (0, 0, .12)), DARK, .045)]
        rows += [(((s*.19, 1.42, lean - .02), (s*.27, 1.18, lean + .1), (s*.24, 1.02, .38)), tuple(.85*c for c in top), .05)]
    rows += [(((-.1, 1.4, lean - .04), (-.08, 1., -.2), (.08, 1., -.2), (.1, 1.4, lean - .04)), top, .11), *head(rng, 1.68, lean + .06)]
    return Thing(limbs(rows, k := rng.uniform(.92, 1.08)), (.6, 1.8*k, 1.75*k), 4)

GREENS = ((52, 84, 40), (70, 100, 44), (40, 70, 42), (96, 104, 48), (128, 100, 44))
WALLS = ((178, 160, 138), (204, 198, 186), (156, 96, 78), (196, 178, 120), (128, 134, 140), (182, 142, 118))
METAL = (112, 114, 118)

def tree(rng):
    "A trunk and a crown of leaves, lighter at the top"
    h, green, spots = rng.uniform(3.5, 7), np.array(pick(rng, GREENS)), rng.normal(0, .8, (7, 3))
    crown = [Part(np.array((c, c)) + (0, h, 0), (green*(.88 + .14*c[1])).tolist(), r, group=1) for c, r in zip(spots[np.argsort(spots[:, 1])], rng.uniform(.6, 1.2, 7))]
    return Thing([Part(np.array([(0, 0, 0), (0, h, 0)]), (74, 58, 46), .13)] + crown)

def pole(rng):
    "A post with a street lamp, a traffic light or a round sign"
    h, kind, c = rng.uniform(2.4, 5.5), rng.integers(3), pick(rng, ((190, 32, 36), (30, 70, 160), (226, 190, 50)))
    rows = [(((0, 0, 0), (0, h, 0)), METAL, .06)]
    if kind == 0: rows += [(((0, h, 0), (-1.4, h + .2, 0)), METAL, .05), (((-1.2, h + .15, 0), (-1.6, h + .15, 0)), HEAD, .09)]
    if kind == 1: rows += [(((0, h, 0), (0, h + .5, 0)), DARK, .2), (((0, h + rng.choice((0, .5)), -.25),)*2, c, .1)]
    if kind == 2: rows += [(((0, 2.3, -.1),)*2, c, .36), (((0, 2.3, -.3),)*2, PLATE, .22)]
    return Thing([replace(p, glow=p.rgb in (HEAD, c) and kind < 2) for p in limbs(rows)])

def block(rng, size, table):
    "A bin or a hedge: a box with a darker band under its top"
    c, faces = pick(rng, table), box(*size)
    return Thing([Part(f, c) for f in faces] + [Part(patch(f, 0, 1, .82, .9), tuple(.7*v for v in c)) for f in faces[:4]], size)

def fence(rng, length):
    "Two rails on posts"
    c, h, z = pick(rng, (METAL, (110, 84, 60), (224, 222, 214))), rng.uniform(.9, 1.3), length/2
    rows = [(((0, y*h, -z), (0, y*h, z)), c, .03) for y in (.45, .95)] + [(((0, 0, t), (0, h, t)), c, .035) for t in np.linspace(-z, z, 7)]
    return Thing([replace(p, group=0) for p in limbs(rows)])

def house(rng, length):
    "Walls with rows of windows, some of them lit"
    h, c = rng.uniform(4.5, 9.), pick(rng, WALLS)
    faces = box(6., h, length)
    parts = [Part(f, c) for f in faces]
    for f, n in ((faces[0], 2), (faces[2], 4), (faces[3], 4)):
        for y, i in ((y, i) for y in np.arange(1., h - 1.6, 2.6) for i in range(n)):
            lit = rng.random() < .25
            parts.append(Part(patch(f, (i + .3)/n, (i + .7)/n, y/h, (y + 1.3)/h), (255, 214, 130) if lit else GLASS, glow=lit))
    return Thing(parts)

@dataclass(frozen=True)
class Road:
    "A straight road; our lane is at x = 0"
    left: float    # kerb, metres
    right: float   # kerb, metres
    pave: float    # width of the pavement, metres
    colours: tuple # verge, pavement, tar

def road(rng):
    "A road with two to four lanes"
    g = rng.uniform(72, 116)
    return Road(pick(rng, (-5.2, -5.2, -7.2, -8.6)), pick(rng, (1.9, 3.9, 5.3)), rng.uniform(2., 4.5),
                (pick(rng, ((92, 112, 58), (112, 118, 66), (126, 120, 100))), pick(rng, ((150, 146, 140), (168, 150, 134), (136, 138, 142))), (g, g, g + 4)))

def strips(rng, road):
    "Ground from the bottom layer up: x0, x1, z0, z1, colour"
    (grass, stone, tar), l, r, p, white = road.colours, road.left, road.right, road.pave, (208, 208, 202)
    rows = [(-400, 400, 2, 900, grass), (l - p, r + p, 2, 900, stone), (l - .18, r + .18, 2, 900, (186, 184, 178)), (l, r, 2, 900, tar)]
    if rng.random() < .35: z = rng.uniform(12, 26); rows.append((-400, 400, z, z + 7, tar))
    rows += [(-1.78, -1.62, z, z + 2.6, white) for z in range(3, 60, 6)]
    if rng.random() < .6: rows += [(x, x + .12, 2, 300, white) for x in (l + .3, r - .4)]
    if rng.random() < .3: z = rng.uniform(7, 16); rows += [(x, x + .5, z, z + 2.6, white) for x in np.arange(l + .3, r - .5, 1.)]
    return rows

def texture(rng, camera):
    "Tar grain and patches of shade below the horizon as a gain, drawn flat and seen in perspective"
    tile, cloud = rng.standard_normal((128, 128), np.float32), rng.standard_normal((14, 14), np.float32)
    cloud = np.clip(2.5*cv2.resize(cloud, (128, 128), interpolation=cv2.INTER_CUBIC) - .9, 0, 1)
    f, top, w = camera.focal, int(camera.horizon) + 1, camera.width
    view = np.array([[f, w/2, 0], [0, camera.horizon - top, f*camera.above], [0, 1, 0]]) @ [[.3, 0, -19], [0, .3, 2], [0, 0, 1]]
    return cv2.warpPerspective((1 + .07*tile)*(1 - rng.uniform(0, .45)*cloud), view, (w, camera.height - top), borderMode=cv2.BORDER_REFLECT)

def shadows(users, camera):
    "Soft dark spots under the road users as a gain (h, w)"
    dark = np.zeros((camera.height, camera.width), np.uint8)
    for t in users:
        foot = gather([Thing([Part(box(t.size[0], 0, t.size[2])[4], DARK)], x=t.x, z=t.z, yaw=t.yaw)])[1]
        cv2.fillConvexPoly(dark, np.clip(camera.project(foot)[0], -9999, 9999).astype(np.int32), 150)
    return 1 - cv2.blur(dark, (9, 5))/np.float32(255)

def backdrop(rng, camera, light, road, users=()):
    "Sky, far trees and lit ground, with an empty id channel: (h, w, 4) uint8"
    h, w, top = camera.height, camera.width, int(camera.horizon) + 1
    canvas, far = np.zeros((h, w, 4), np.uint8), shade(np.float32(pick(rng, GREENS)), np.zeros(3), np.float32(60), light)
    canvas[:top, :, :3] = np.linspace(light.top, light.low, top)[:, None]
    line = camera.horizon - .02*h*np.abs(np.cumsum(rng.normal(0, .8, 33)) + rng.uniform(1, 5))
    hills = np.vstack([np.stack([np.linspace(0, w, 33), line], 1), [(w, top), (0, top)]]).astype(np.int32)
    cv2.fillPoly(canvas, [hills], (*np.clip(far, 0, 255).tolist(), 0))
    for x0, x1, z0, z1, rgb in strips(rng, road):
        uv = camera.project(np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]))[0]
        cv2.fillConvexPoly(canvas, np.clip(uv*16, -1e6, 1e6).astype(np.int32), (*rgb, 0), shift=4)
    gain = texture(rng, camera)*shadows(users, camera)[top:]
    depth = np.float32(camera.focal*camera.above/(np.arange(top, h) - camera.horizon))[:, None]
    canvas[top:, :, :3] = np.clip(shade(canvas[top:, :, :3]*gain[..., None], np.zeros(3), depth, light), 0, 255)
    return canvas

def spot(rng, thing, road, style):
    "Where such a road user may be: on a lane, parked, on the pavement or crossing"
    (w, _, l), (near, far), side, r = thing.size, style.depth, rng.choice((-1, 1)), rng.random()
    z = math.exp(rng.uniform(math.log(near + l/2), math.log(far)))
    edge, along, across = (road.right, 0., math.pi/2) if side > 0 else (road.left, math.pi, -math.pi/2)
    x, yaw = rng.uniform(max(road.left - road.pave, -.86*z), min(road.right + road.pave, .86*z)), across
    if thing.cls == 3 and r > .35: x, yaw = edge + side*rng.uniform(.4, road.pave), pick(rng, (0, math.pi, across))
    elif thing.cls == 4 and r > .4: x, yaw = edge - side*rng.uniform(.5, 1.2), along
    elif thing.cls < 3 and r > .6: x, yaw = edge - side*(w/2 + .1) + side*rng.choice((0., .6*w)), along
    elif thing.cls < 3 and r > .3: x, yaw = (0. if side > 0 else -3.5), along
    return replace(thing, x=x + rng.normal(0, .1), z=z, yaw=yaw + rng.normal(0, .12))

def extent(thing, camera):
    "Footprint and picture of a thing, roughly: x0, z0, x1, z1 in metres and x0, y0, x1, y1 in pixels"
    (w, h, l), c, s = thing.size, abs(math.cos(thing.yaw)), abs(math.sin(thing.yaw))
    a, b = (w*c + l*s)/2, (w*s + l*c)/2
    k = camera.focal/max(thing.z - b, 1.)
    u, v = camera.width/2 + thing.x*k, camera.horizon + camera.above*k
    return np.array([thing.x - a, thing.z - b, thing.x + a, thing.z + b, u - a*k, v - h*k, u + a*k, v]).reshape(2, 4)

def overlap(a, b):
    "Shared area of two rectangles over that of the smaller, along the last axis"
    side = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    return side.prod(-1)/np.minimum((a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1))

def road_users(rng, road, camera, style):
    "Road users that stand in view, apart from each other and not too much in front of each other"
    found, taken = [], []
    for cls in rng.choice(5, rng.integers(*style.users), p=style.shares):
        thing = (car, van, truck, pedestrian, cyclist)[cls](rng)
        for t in (spot(rng, thing, road, style) for _ in range(12)):
            own = extent(t, camera)
            share = np.array([overlap(own, o) for o in taken]).reshape(-1, 2)
            if abs(t.x) < .86*t.z and not (share > (0, style.crowd)).any(): found.append(t); taken.append(own); break
    return found

def furniture(rng, road):
    "Trees, poles and bins along both kerbs, never labelled"
    found = []
    for side, edge in ((-1, road.left), (1, road.right)):
        for z in np.arange(rng.uniform(8, 14), 50, rng.uniform(8, 14)):
            make = pick(rng, (tree, pole, lambda r: block(r, (.6, 1.1, .6), ((46, 62, 50), (60, 60, 66), (40, 62, 96)))))
            found.append(replace(make(rng), x=edge + side*(.5 if make is pole else rng.uniform(.6, road.pave)), z=z))
    return found

def scenery(rng, road):
    "Houses, hedges or fences behind each pavement, trees behind those"
    found = []
    for side, edge in ((-1, road.left), (1, road.right)):
        x, kind = edge + side*(road.pave + .6), rng.integers(4)
        for z in np.arange(18, 66, 12) + rng.uniform(0, 6):
            if kind == 0: found.append(replace(house(rng, 11.), x=x + 3.2*side, z=z))
            elif kind < 3: found.append(replace(block(rng, (.8, rng.uniform(.9, 1.8), 12.), GREENS) if kind == 1 else fence(rng, 12.), x=x, z=z))
            if kind: found.append(replace(tree(rng), x=x + side*rng.uniform(2, 14), z=z + 1))
    return found

def light_of(rng, style):
    "Night, dusk or day as the style asks, each a little different"
    r, a = rng.random(), rng.uniform(0, math.pi)
    name = 'night' if r < style.night else 'dusk' if r < style.night + style.dusk else pick(rng, ('day', 'day', 'grey'))
    gain = rng.uniform(.85, 1.1)
    return replace(LIGHTS[name], ambient=tuple(gain*c for c in LIGHTS[name].ambient), sun=(math.cos(a), .6, -.8*math.sin(a)))

def develop(rng, canvas, light, style):
    "From the doubled canvas to what a sensor records: glare, blur, contrast, noise"
    x = cv2.resize(canvas, None, fx=.5, fy=.5, interpolation=cv2.INTER_AREA)[..., :3].astype(np.float32)
    if light.lamps: x += 1.4*cv2.GaussianBlur(np.maximum(x - 180, 0), (0, 0), 2.5)
    x = cv2.GaussianBlur(x, (5, 5), .25 + rng.uniform(0, style.blur))*np.float32(rng.uniform(.85, 1.15)) + np.float32(rng.uniform(-12, 12))
    x += rng.standard_normal(x.shape, np.float32)*np.float32(style.noise*rng.uniform(.4, 1.2))
    return np.clip(x, 0, 255).astype(np.uint8)

def label(full, own, left, cls, size, style):
    "Boxes, classes, hidden and cut-off share of the road users that deserve a label"
    boxes = np.clip(full, 0, (size[1], size[0])*2)
    cut = 1 - (boxes[:, 2:] - boxes[:, :2]).prod(1)/(full[:, 2:] - full[:, :2]).prod(1)
    hidden = 1 - left/np.maximum(own, 1)
    keep = (boxes[:, 3] - boxes[:, 1] >= style.min_height) & (np.maximum(cut, hidden) <= style.hidden) & (own > 0)
    return tuple(np.asarray(v[keep], t) for v, t in ((boxes, np.float32), (cls, np.int64), (hidden, np.float32), (cut, np.float32)))

def road_scene(index,  # int: which scene
    seed=0,            # int: which world
    size=(96, 320),    # tuple: height and width, pixels
    style=SceneStyle() # SceneStyle: the knobs
    ):
    "One Scene, a pure function of its arguments"
    rng, camera = np.random.default_rng((seed, index)), Camera(2*size[1], 2*size[0])
    light, street = light_of(rng, style), road(rng)
    users = road_users(rng, street, camera, style)
    canvas = backdrop(rng, camera, light, street, users)
    paint(canvas, scenery(rng, street), camera, light)
    full, own = paint(canvas, users + furniture(rng, street), camera, light)
    n = len(users)
    left = np.bincount(canvas[..., 3].ravel(), minlength=n + 1)[1:n + 1]
    return Scene(develop(rng, canvas, light, style), *label(full[:n]/2, own[:n], left, np.array([t.cls for t in users]), size, style))

def road_scenes(n,     # int: how many
    seed=0,            # int: which world
    size=(96, 320),    # tuple: height and width, pixels
    start=0,           # int: index of the first
    style=SceneStyle() # SceneStyle: the knobs
    ):
    "A list of n Scenes with indices start, start + 1, ..."
    return [road_scene(i, seed, size, style) for i in range(start, start + n)]
