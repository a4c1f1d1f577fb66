import functools
import math
from dataclasses import dataclass, field
import cv2
import numpy as np

SCENE_CLASSES = ('car', 'van', 'truck', 'pedestrian', 'cyclist')

@dataclass(frozen=True)
class Scene:
    "One picture and its labels"
    image: np.ndarray      # (h, w, 3) uint8 RGB
    boxes: np.ndarray      # (k, 4) float32 xyxy in pixels, clipped to the image
    cls: np.ndarray        # (k,) int64 index into SCENE_CLASSES
    occluded: np.ndarray   # (k,) float32 share hidden by nearer things
    truncated: np.ndarray  # (k,) float32 share of the box outside the image

@dataclass(frozen=True)
class SceneStyle:
    "The knobs that decide how hard the scenes are"
    users: tuple = (5, 10)     # road users tried per image, low and high (exclusive)
    shares: tuple = (.40, .13, .12, .20, .15)  # chance of each class
    depth: tuple = (4.5, 30.)  # nearest and farthest road user, metres
    night: float = .15         # share of night scenes
    dusk: float = .2           # share of dusk scenes
    noise: float = 5.          # sensor noise, grey levels
    blur: float = .6           # largest blur, pixels
    crowd: float = .4          # most two boxes may overlap, share of the smaller
    hidden: float = .7         # hidden or cut off beyond this: not labelled
    min_height: float = 7.     # lower boxes are not labelled, pixels
    min_width: float = 3.

@dataclass(frozen=True)
class Camera:
    "A pinhole camera that looks along the road"
    width: int           # pixels
    height: int          # pixels
    above: float = 1.65  # metres over the road
    @property
    def focal(self): return .581*self.width
    @property
    def horizon(self): return .46*self.height
    def project(self, points):
        "Metres (n, 3), x right, y up, z ahead, to pixels (n, 2) and pixels per metre (n,)"
        scale = self.focal/np.maximum(points[:, 2], .6)
        return np.c_[self.width/2 + points[:, 0]*scale, self.horizon + (self.above - points[:, 1])*scale], scale

@dataclass(frozen=True)
class Light:
    "What lights a scene"
    ambient: tuple   # RGB gain
    top: tuple       # sky overhead
    low: tuple       # sky at horizon and haze
    beam: float = 0. # own headlights
    lamps: bool = False
    sun: tuple = (0., 1., 0.)

LIGHTS = dict(day=Light((1., 1., 1.), (92, 148, 222), (222, 232, 242)),
    grey=Light((.86, .88, .92), (168, 178, 190), (214, 218, 222)),
    dusk=Light((.62, .52, .54), (62, 74, 130), (246, 176, 122), .15, True),
    night=Light((.26, .28, .38), (8, 10, 26), (38, 38, 60), .8, True))

@dataclass(frozen=True)
class Part:
    "A flat face (radius 0) or a round limb along its points"
    points: object        # (n, 3) metres in the frame of the object
    rgb: tuple            # 0 to 255
    radius: float = 0.    # metres
    glow: bool = False    # shines when lamps are on
    group: int = 0        # groups are painted far to near

def shade(rgb, normal, depth, light):
    "Colour after sun, own headlights and haze"
    gain = np.asarray(light.ambient, np.float32) + (light.beam*np.exp(-depth/14.))[..., None]
    sun = 1 + .3*np.clip(normal @ np.asarray(light.sun, np.float32), -.8, .5)[..., None]
    clear = np.exp(-depth/150.)[..., None]
    return rgb*(gain*sun*clear) + np.asarray(light.low, np.float32)*(1 - clear)

def turned(points, yaw, at):
    c, s = math.cos(yaw), math.sin(yaw)
    return points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + at

def facing(world, first, centre):
    "Unit normals pointing away from centre, middle and whether the camera sees the face"
    a, b, c = world[first], world[first + 1], world[np.minimum(first + 2, len(world) - 1)]
    n = np.cross(b - a, c - a)
    n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-9
    n *= np.where(((a - centre)*n).sum(1) < 0, -1, 1)[:, None]
    return n

def paint(img, parts, camera, light, at, yaw=0., ident=0):
    "Draw one object far to near, return its full box xyxy"
    count = np.array([len(p.points) for p in parts])
    first = np.cumsum(count) - count
    world = turned(np.concatenate([p.points for p in parts]), yaw, at)
    radius = np.array([p.radius for p in parts])
    uv, scale = camera.project(world)
    depth = np.add.reduceat(world[:, 2], first)/count
    normal = facing(world, first, (world.min(0) + world.max(0))/2)
    eye = world[first] - (0, camera.above, 0)
    seen = (radius > 0) | ((normal*eye).sum(1) <= 1e-6)
    normal[radius > 0] = (0, .5, 0)
    rgb = shade(np.array([p.rgb for p in parts], float), normal, depth, light)
    grp = np.array([p.group for p in parts])
    near = (np.bincount(grp, depth)/np.maximum(np.bincount(grp), 1))[grp]
    fixed = np.clip(uv*16, -2e5, 2e5).astype(np.int32)
    for i in np.argsort(-near, kind='stable'):
        if not seen[i]: continue
        p = parts[i]
        col = (*(p.rgb if p.glow and light.lamps else np.clip(rgb[i], 0, 255).tolist()), ident)
        xy = fixed[first[i]:first[i] + count[i]]
        if p.radius: cv2.polylines(img, [xy], False, col, max(1, min(255, round(2*p.radius*camera.focal/max(depth[i], .6)))), shift=4)
        else: cv2.fillPoly(img, [xy], col, shift=4)
    r = np.repeat(radius, count)*scale
    return np.r_[(uv - r[:, None]).min(0), (uv + r[:, None]).max(0)]

def patch(quad, u0, u1, v0, v1):
    "The part of a four-cornered face between shares u0..u1 across and v0..v1 up"
    return weights(u0, u1, v0, v1) @ quad

@functools.lru_cache(4096)
def weights(u0, u1, v0, v1):
    return np.array([[(1 - u)*(1 - v), u*(1 - v), u*v, (1 - u)*v] for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))])

def box(width, height, length, y=0., z=0., x=0.):
    "Faces of a box: rear, front, left, right, top, each as (4, 3) corners"
    a, b, c = width/2, y + height, length/2
    corner = lambda s, t: [(x - a*s, y, z + t*c), (x + a*s, y, z + t*c), (x + a*s, b, z + t*c), (x - a*s, b, z + t*c)]
    rear, front = np.array(corner(1, -1)), np.array(corner(-1, 1))
    left, right = np.array([front[1], rear[0], rear[3], front[2]]), np.array([rear[1], front[0], front[3], rear[2]])
    return rear, front, left, right, np.array([rear[3], rear[2], front[3], front[2]])

PROFILES = dict(
    hatch=((-.49, .16), (-.5, .5), (-.47, .6), (-.36, .98), (.04, 1.), (.26, .62), (.46, .5), (.5, .16)),
    saloon=((-.49, .16), (-.5, .56), (-.34, .62), (-.2, .97), (.05, 1.), (.24, .62), (.47, .5), (.5, .16)),
    estate=((-.49, .16), (-.5, .5), (-.49, .6), (-.43, .98), (.06, 1.), (.26, .62), (.46, .54), (.5, .16)),
    van=((-.5, .13), (-.5, .4), (-.5, .52), (-.48, .98), (.2, 1.), (.35, .58), (.48, .46), (.5, .13)),
    cab=((-.5, .12), (-.5, .3), (-.5, .5), (-.48, 1.), (.3, 1.), (.46, .5), (.5, .44), (.5, .12)))
PAINTS = ((206, 208, 212), (150, 154, 160), (60, 62, 68), (28, 28, 32), (170, 30, 34), (38, 66, 128), (120, 146, 178), (44, 86, 66), (214, 176, 70), (236, 236, 234))
GLASS, DARK, TYRE, HUB = (52, 66, 80), (34, 34, 38), (22, 22, 24), (142, 142, 146)
TAIL, HEAD, PLATE = (214, 36, 30), (255, 244, 214), (232, 230, 214)

def wheel(x, z, radius, group=0):
    t = np.arange(10)*(2*math.pi/10)
    rim = lambda r, out: np.c_[np.full(10, x*out), radius + r*np.sin(t), z + r*np.cos(t)]
    return [Part(rim(radius, 1.), TYRE, group=group), Part(rim(.6*radius, 1.01), HUB, group=group)]

def ends(rear, front, group=0):
    "Lamps, plates, bumpers and grille"
    parts = [Part(patch(q, 0, 1, 0, .25), DARK, group=group) for q in (rear, front)]
    for q, rgb, v in ((rear, TAIL, .92), (front, HEAD, .85)):
        parts += [Part(patch(q, u, u + .18, v - .32, v), rgb, glow=True, group=group) for u in (.03, .79)]
        parts += [Part(patch(q, .36, .64, .3, .5), PLATE, group=group)]
    return parts + [Part(patch(front, .26, .74, .56, .8), DARK, group=group)]

def shell(profile, width, height, length, rgb, panes, z=0., group=0):
    "Bodywork extruded from a side profile with `panes` side windows"
    side = np.array(PROFILES[profile])*(length, height)
    half = width/2*(1 - .35*np.clip(side[:, 1]/height - .58, 0, 1))
    left, right = (np.c_[s*half, side[:, 1], side[:, 0] + z] for s in (-1, 1))
    quads = [np.array([left[i], right[i], right[j], left[j]]) for i, j in ((0, 1), (1, 2), (2, 3), (3, 4), (5, 4), (6, 5), (7, 6))]
    parts = [Part(q, rgb, group=group) for q in (left, right, *quads)]
    parts += [Part(patch(quads[i], .07, .93, .1, .88), GLASS, group=group) for i in (2, 4)]
    for s in (left, right):
        cabin = s[[2, 5, 4, 3]]
        parts += [Part(patch(cabin, a, b, .12, .84), GLASS, group=group) for a, b in panes]
        parts += [Part(s[[0, 7, 6, 1]]*(1, .3, 1) + (0, .12*height, 0), tuple(.55*c for c in rgb), group=group)]
    return parts + ends(quads[0], quads[6], group)

def pick(rng, table): return table[rng.integers(len(table))]

def car(rng):
    w, h, l = rng.uniform((1.62, 1.38, 3.6), (1.85, 1.66, 4.7))
    kind = pick(rng, ('hatch', 'saloon', 'estate'))
    parts = shell(kind, w, h, l, pick(rng, PAINTS), ((.06, .46), (.52, .93)))
    return parts + [p for x in (-w/2, w/2) for z in (-.3*l, .31*l) for p in wheel(x, z, .31)], (w, h, l)

def van(rng):
    w, h, l = rng.uniform((1.8, 1.85, 4.5), (2.05, 2.4, 5.6))
    panes = pick(rng, (((.72, .95),), ((.05, .33), (.38, .66), (.72, .95))))
    parts = shell('van', w, h, l, pick(rng, PAINTS), panes)
    return parts + [p for x in (-w/2, w/2) for z in (-.31*l, .33*l) for p in wheel(x, z, .34)], (w, h, l)

def truck(rng):
    w, h, l = rng.uniform((2.2, 2.7, 5.6), (2.5, 3.6, 8.5))
    cab, load = pick(rng, PAINTS), pick(rng, PAINTS)
    low = rng.random() < .25
    faces = box(w, (h - .9)*(.35 if low else 1.), .74*l, .9, -.13*l)
    parts = shell('cab', .94*w, rng.uniform(.78, .92)*h, .24*l, cab, ((.35, .85),), .38*l, 1)
    parts += [Part(f, load) for f in faces] + [Part(f, DARK) for f in box(.8*w, .5, .74*l, .45, -.13*l)]
    parts += [Part(patch(f, u, u + .02, 0, 1), tuple(.7*c for c in load)) for f in faces[2:4] for u in (.25, .5, .75)]
    parts += [Part(patch(faces[0], .49, .51, 0, 1), DARK)]
    parts += [Part(patch(faces[0], u, u + .14, -.12, -.03), TAIL, glow=True) for u in (.02, .84)]
    return parts + [p for x in (-w/2, w/2) for z in (-.38*l, -.22*l, .36*l) for p in wheel(x, z, .48, int(z > 0))], (w, h, l)

CLOTHES = ((32, 36, 54), (58, 74, 120), (140, 40, 44), (66, 92, 60), (206, 200, 186), (90, 84, 80), (222, 160, 52), (24, 24, 26), (170, 120, 150))
SKIN, HAIR = ((224, 178, 148), (196, 142, 108), (128, 86, 62)), ((40, 30, 24), (92, 62, 36), (176, 142, 86), (120, 118, 116))

def limbs(*rows):
    return [Part(np.array(points, float), rgb, radius, group=i) for i, (points, rgb, radius) in enumerate(rows)]

def head(y, z, size, skin, hair):
    return (((0, y, z - .03), (0, y + .03, z - .03)), hair, size), (((0, y - .03, z + .03), (0, y - .03, z + .04)), skin, .9*size)

def pedestrian(rng):
    h = rng.uniform(1.55, 1.92)*(1 if rng.random() < .88 else .7)
    step = rng.uniform(-.2, .2)*h
    top, legs, skin, hair = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKIN), pick(rng, HAIR)
    rows = []
    for s in (-1, 1):
        rows += [(((s*.08, .5*h, 0), (s*.09, .27*h, s*step*.6 + .05), (s*.09, .03*h, s*step - .04)), legs, .042*h),
            (((s*.09, .02*h, s*step - .04), (s*.09, .02*h, s*step + .1)), DARK, .025*h),
            (((s*.12*h, .8*h, 0), (s*.145*h, .64*h, -s*step*.5), (s*.14*h, .5*h, -s*step*.8 + .08)), tuple(.85*c for c in top), .032*h)]
    rows += [(((-.065*h, .77*h, 0), (-.05*h, .54*h, 0), (.05*h, .54*h, 0), (.065*h, .77*h, 0), (0, .75*h, 0)), top, .06*h)]
    if rng.random() < .3: rows += [(((0, .75*h, -.16), (0, .62*h, -.16)), pick(rng, CLOTHES), .08*h)]
    return limbs(*rows, *head(.93*h, 0, .062*h, skin, hair)), (.6, h, .6)

def ring(z, radius):
    t = np.arange(15)*(2*math.pi/14)
    return np.c_[np.zeros(15), radius + radius*np.sin(t), z + radius*np.cos(t)]

def cyclist(rng):
    k = rng.uniform(.92, 1.08)
    top, legs, skin, hair, frame = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKIN), pick(rng, HAIR + PAINTS), pick(rng, PAINTS)
    lean, push = rng.uniform(.1, .3), rng.uniform(0, 2*math.pi)
    back, fore, seat, bar, hub = (0, .34, -.52), (0, .34, .54), (0, .92, -.2), (0, .98, .4), (0, .32, 0)
    rows = [(ring(-.52, .33), TYRE, .03), (ring(.54, .33), TYRE, .03), ((back, seat, hub, back), frame, .025), ((seat, bar, hub), frame, .025), ((bar, fore), frame, .025), (((-.26, 1., .38), (.26, 1., .38)), DARK, .025)]
    for s in (-1, 1):
        foot = (s*.1, .32 + .15*math.sin(push)*s, .15*math.cos(push)*s)
        rows += [(((s*.1, .95, -.2), (s*.11, .62 + .5*(foot[1] - .2), .2), foot), legs, .075), ((foot, (s*.1, foot[1], foot[2] + .12)), DARK, .045),
            (((s*.19, 1.42, lean - .02), (s*.27, 1.18, lean + .1), (s*.24, 1.02, .38)), tuple(.85*c for c in top), .05)]
    rows += [(((-.1, 1.4, lean - .04), (-.08, 1., -.2), (.08, 1., -.2), (.1, 1.4, lean - .04)), top, .11)]
    rows += head(1.68, lean + .06, .115, skin, hair)
    return [Part(p.points*k, p.rgb, p.radius*k, group=p.group) for p in limbs(*rows)], (.6, 1.78*k, 1.75)

USERS = (car, van, truck, pedestrian, cyclist)

GREENS = ((52, 84, 40), (70, 100, 44), (40, 70, 42), (96, 104, 48), (128, 100, 44))

def tree(rng):
    h, g = rng.uniform(3.5, 7.), np.array(pick(rng, GREENS))
    spots = rng.normal(0, 1, (9, 3))*(.8, .7, .8) + (0, h, 0)
    crown = [Part(np.array([c, c + .01]), tuple(g*(.8 + .12*(c[1] - h) + .1*rng.random())), rng.uniform(.6, 1.1), group=1) for c in spots[np.argsort(spots[:, 1])]]
    return [Part(np.array([(0., 0, 0), (0, h, 0)]), (74, 58, 46), .16)] + crown

def pole(rng):
    h, kind = rng.uniform(2.3, 6.), rng.integers(4)
    parts = [Part(np.array([(0., 0, 0), (0, h, 0)]), (112, 114, 118), .06)]
    if kind == 0: return parts + [Part(np.array([(0, h, 0), (-1.4, h + .2, 0)]), (112, 114, 118), .05), Part(np.array([(-1.2, h + .15, 0), (-1.6, h + .15, 0)]), (255, 236, 190), .09, True, 1)]
    if kind == 1: return parts + [Part(f, (40, 42, 44)) for f in box(.34, .95, .3, h - .9)] + [Part(np.array([(0, h - .15 - .3*i, -.16), (0, h - .16 - .3*i, -.16)]), c, .1, i == lit, 1) for lit in (int(rng.integers(3)),) for i, c in enumerate(((235, 50, 40), (240, 180, 40), (60, 220, 120)))]
    t = np.arange(8)*(math.pi/4) + math.pi/8
    disc = lambda r: np.c_[r*np.cos(t), 2.3 + r*np.sin(t), np.full(8, -.08)]
    return parts + [Part(disc(.36), pick(rng, ((190, 32, 36), (30, 70, 160), (226, 190, 50))), group=1), Part(disc(.22), (236, 236, 236), group=1)]

def bin_(rng):
    w, h = rng.uniform((.5, .8), (1.1, 1.3))
    c = pick(rng, ((46, 62, 50), (60, 60, 66), (40, 62, 96), (120, 92, 46)))
    faces = box(w, h, .6)
    return [Part(f, c) for f in faces] + [Part(patch(f, 0, 1, .82, .9), DARK) for f in faces[:4]]

def house(rng, length):
    w, h = 6., rng.uniform(4.5, 9.)
    c = pick(rng, ((178, 160, 138), (204, 198, 186), (156, 96, 78), (196, 178, 120), (128, 134, 140), (182, 142, 118)))
    faces = box(w, h, length)
    parts = [Part(f, c) for f in faces]
    for f, n in ((faces[0], 3), (faces[2], 4), (faces[3], 4)):
        for row in range(int(h//2.6)):
            y = (row*2.6 + 1.)/h
            parts += [Part(patch(f, (i + .3)/n, (i + .7)/n, y, y + 1.3/h), *((((255, 214, 130), 0., True),) if rng.random() < .3 else ((GLASS,),))[0]) for i in range(n)]
    return parts

def hedge(rng, length):
    g = pick(rng, GREENS); h = rng.uniform(.9, 1.8)
    parts = [Part(f, g) for f in box(.8, h, length)]
    return parts

def fence(rng, length):
    c = pick(rng, ((150, 150, 152), (110, 84, 60), (224, 222, 214)))
    h = rng.uniform(.9, 1.3); n = int(length/1.2)
    rails = [Part(np.array([(0, y*h, -length/2), (0, y*h, length/2)]), c, .03) for y in (.45, .95)]
    return rails + [Part(np.array([(0, 0, z), (0, h, z)]), c, .035) for z in np.linspace(-length/2, length/2, n)]

@dataclass(frozen=True)
class Road:
    left: float
    right: float
    pave: float
    grass: tuple
    stone: tuple
    tar: tuple

def road(rng):
    g = rng.uniform(72, 116)
    return Road(-rng.choice((5.2, 5.2, 7.2, 8.6)), rng.choice((1.9, 3.9, 5.3)), rng.uniform(2., 4.5),
                pick(rng, ((92, 112, 58), (112, 118, 66), (126, 120, 100))), pick(rng, ((150, 146, 140), (168, 150, 134), (136, 138, 142))), (g, g, g + 4))

def strips(rng, road):
    "Ground from bottom layer up: rows of x0, x1, z0, z1, rgb"
    l, r, p, white = road.left, road.right, road.pave, (208, 208, 202)
    rows = [(-400, 400, 2, 900, road.grass), (l - p, r + p, 2, 900, road.stone), (l - .18, r + .18, 2, 900, (186, 184, 178)), (l, r, 2, 900, road.tar)]
    if rng.random() < .35: z = rng.uniform(12, 26); rows += [(-400, 400, z, z + 7, road.tar)]
    rows += [(-1.78, -1.62, z, z + 2.6, white) for z in range(3, 60, 6)]
    if rng.random() < .6: rows += [(x, x + .12, 2, 300, white) for x in (l + .3, r - .4)]
    if rng.random() < .3: z = rng.uniform(7, 16); rows += [(x, x + .5, z, z + 2.6, white) for x in np.arange(l + .3, r - .5, 1.)]
    return rows

def texture(rng, camera):
    "Tar grain and patches of shade, seen in perspective, as a gain (rows, width)"
    tile = 1 + .07*rng.standard_normal((128, 128), np.float32)
    cloud = cv2.resize(rng.standard_normal((14, 14), np.float32), (128, 128), interpolation=cv2.INTER_CUBIC)
    tile *= 1 - rng.uniform(0, .45)*np.clip(2.5*(cloud - .35), 0, 1)
    f, top = camera.focal, int(camera.horizon) + 1
    ground = np.array([[f, camera.width/2, 0], [0, camera.horizon - top, f*camera.above], [0, 1, 0]])
    metres = np.array([[.3, 0, -19], [0, .3, 2], [0, 0, 1]])
    return cv2.warpPerspective(tile, ground @ metres, (camera.width, camera.height - top), borderMode=cv2.BORDER_REFLECT)

def backdrop(rng, camera, light, road, shadows):
    "Sky, far trees and lit ground as (h, w, 4): RGB and an empty id channel"
    h, w, top = camera.height, camera.width, int(camera.horizon) + 1
    img = np.zeros((h, w, 4), np.uint8)
    img[:top, :, :3] = np.linspace(light.top, light.low, top)[:, None]
    line = camera.horizon - .02*h*np.abs(np.cumsum(rng.normal(0, .8, 33)) + rng.uniform(1, 5))
    far = np.r_[np.c_[np.linspace(0, w, 33), line], [(w, top), (0, top)]].astype(np.int32)
    cv2.fillPoly(img, [far], (*np.clip(shade(np.array(pick(rng, GREENS), float), np.zeros(3), np.array(60.), light), 0, 255).tolist(), 0))
    for x0, x1, z0, z1, rgb in strips(rng, road):
        uv, _ = camera.project(np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]))
        cv2.fillConvexPoly(img, np.clip(uv*16, -1e6, 1e6).astype(np.int32), (*rgb, 0), shift=4)
    gain = texture(rng, camera)
    dark = np.zeros((h, w), np.uint8)
    for q in shadows: cv2.fillConvexPoly(dark, np.clip(camera.project(q)[0], -9999, 9999).astype(np.int32), 150)
    gain *= 1 - cv2.blur(dark, (9, 5))[top:]/255.
    depth = (camera.focal*camera.above/(np.arange(top, h) - camera.horizon))[:, None].astype(np.float32)
    img[top:, :, :3] = np.clip(shade(img[top:, :, :3]*gain[..., None], np.zeros(3), depth, light), 0, 255)
    return img

def spot(rng, name, size, road, style):
    "x, z and yaw where a road user may be"
    w, h, l = size
    near, far = style.depth
    z = math.exp(rng.uniform(math.log(near + l/2), math.log(far)))
    side, r = rng.choice((-1, 1)), rng.random()
    edge = road.right if side > 0 else road.left
    along = 0. if side > 0 else math.pi
    across = rng.choice((-1, 1))*math.pi/2
    wide = rng.uniform(max(road.left - road.pave, -.86*z), min(road.right + road.pave, .86*z))
    if name == 'pedestrian': x, yaw = (wide, across) if r < .35 else (edge + side*rng.uniform(.4, road.pave), pick(rng, (0, math.pi, across)))
    elif name == 'cyclist': x, yaw = (wide, across) if r < .4 else (edge - side*rng.uniform(.5, 1.2), along)
    elif r < .3: x, yaw = wide, across
    elif r < .6: x, yaw = (0., 0.) if side > 0 else (-3.5, math.pi)
    else: x, yaw = edge - side*(w/2 + .1) + side*rng.choice((0., w*.6)), along
    return x + rng.normal(0, .1), z, yaw + rng.normal(0, .12)

def clashes(a, others, crowd):
    "a and others: rows (x, z, half extents in x and z, box x0, y0, x1, y1)"
    for b in others:
        if abs(a[0] - b[0]) < a[2] + b[2] + .15 and abs(a[1] - b[1]) < a[3] + b[3] + .15: return True
        w, h = min(a[6], b[6]) - max(a[4], b[4]), min(a[7], b[7]) - max(a[5], b[5])
        area = min((q[6] - q[4])*(q[7] - q[5]) for q in (a, b))
        if w > 0 and h > 0 and w*h > crowd*area: return True
    return False

def extent(x, z, yaw, size, camera):
    w, h, l = size
    c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
    hx, hz = (w*c + l*s)/2, (w*s + l*c)/2
    k = camera.focal/max(z - hz, 1.)
    u, v = camera.width/2 + x*k, camera.horizon + camera.above*k
    return x, z, hx, hz, u - hx*k, v - h*k, u + hx*k, v

def road_users(rng, road, camera, style):
    found, rows = [], []
    for cls in rng.choice(5, rng.integers(*style.users), p=style.shares):
        parts, size = USERS[cls](rng)
        for _ in range(12):
            x, z, yaw = spot(rng, SCENE_CLASSES[cls], size, road, style)
            row = extent(x, z, yaw, size, camera)
            if abs(x) < .86*z and not clashes(row, rows, style.crowd): found.append((int(cls), parts, size, x, z, yaw)); rows.append(row); break
    return found

def furniture(rng, road):
    "trees, poles, bins near the kerb: (parts, x, z)"
    out = []
    for side in (-1, 1):
        edge, make = (road.right if side > 0 else road.left), pick(rng, (tree, pole, tree))
        for z in np.arange(rng.uniform(8, 14), 60, rng.uniform(8, 14)):
            m = make if rng.random() < .7 else pick(rng, (pole, bin_))
            out.append((m(rng), edge + side*(.5 if m is pole else rng.uniform(.6, road.pave)), z))
    return out

def scenery(rng, road):
    out = []
    for side in (-1, 1):
        x = (road.right if side > 0 else road.left) + side*(road.pave + .6)
        kind = rng.integers(4)
        z = 70.
        while z > 12 and kind < 3:
            l = rng.uniform(8, 14)
            if kind == 0: out.append((house(rng, l - 1.), x + side*3.2, z - l/2))
            elif kind == 1: out.append((hedge(rng, l), x, z - l/2))
            else: out.append((fence(rng, l), x, z - l/2))
            z -= l
        if kind: out += [(tree(rng), x + side*rng.uniform(2, 14), z) for z in sorted(rng.uniform(12, 60, 4))[::-1]]
    return sorted(out, key=lambda o: -o[2])

def light_of(rng, style):
    r = rng.random()
    name = 'night' if r < style.night else 'dusk' if r < style.night + style.dusk else pick(rng, ('day', 'day', 'grey'))
    base, k = LIGHTS[name], rng.uniform(.85, 1.1)
    t = rng.uniform(0, math.pi)
    return Light(tuple(k*c for c in base.ambient), base.top, base.low, base.beam, base.lamps, (math.cos(t), .6, -math.sin(t)*.8))

def develop(rng, img, light, style):
    "From the painted canvas to what a sensor would record"
    x = cv2.resize(img[..., :3], None, fx=.5, fy=.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    if light.lamps: x += 1.6*cv2.GaussianBlur(np.maximum(x - 170, 0), (0, 0), 3)
    x = cv2.GaussianBlur(x, (0, 0), .25 + rng.uniform(0, style.blur))
    x = (x - 110)*rng.uniform(.85, 1.15) + 110 + rng.uniform(-10, 10)
    x += style.noise*rng.uniform(.4, 1.2)*rng.standard_normal(x.shape, np.float32)
    return np.clip(x, 0, 255).astype(np.uint8)

def road_scene(index, seed=0, size=(96, 320), style=SceneStyle()):
    rng = np.random.default_rng((seed, index))
    h, w = size
    camera, light, street = Camera(2*w, 2*h), light_of(rng, style), road(rng)
    users = road_users(rng, street, camera, style)
    foot = [turned(np.array([(a*s[0]*.5, 0, b*s[2]*.5) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]), yaw, (x, 0, z)) for _, _, s, x, z, yaw in users]
    img = backdrop(rng, camera, light, street, foot)
    for parts, x, z in scenery(rng, street): paint(img, parts, camera, light, (x, 0, z))
    things = [(-1, p, None, x, z, 0.) for p, x, z in furniture(rng, street)] + users
    rows, own = [], []
    for cls, parts, _, x, z, yaw in sorted(things, key=lambda o: -o[4]):
        ident = len(rows) + 1 if cls >= 0 else 0
        b = paint(img, parts, camera, light, (x, 0, z), yaw, ident)
        if ident:
            rows.append((cls, *b)); own.append((img[..., 3] == ident).sum())
    left = np.bincount(img[..., 3].ravel(), minlength=len(rows) + 1)[1:]
    return Scene(develop(rng, img, light, style), *labels(np.array(rows).reshape(-1, 5), np.array(own), left, size, style))

def labels(rows, own, left, size, style):
    full = rows[:, 1:]/2
    boxes = np.clip(full, 0, (size[1], size[0])*2)
    side = boxes[:, 2:] - boxes[:, :2]
    truncated = 1 - side.prod(1)/(full[:, 2:] - full[:, :2]).prod(1)
    occluded = 1 - left/np.maximum(own, 1)
    keep = (side[:, 1] >= style.min_height) & (side[:, 0] >= style.min_width) & (np.maximum(occluded, truncated) <= style.hidden)
    return boxes[keep].astype(np.float32), rows[keep, 0].astype(np.int64), occluded[keep].astype(np.float32), truncated[keep].astype(np.float32)

def road_scenes(n, seed=0, size=(96, 320), start=0, style=SceneStyle()):
    return [road_scene(i, seed, size, style) for i in range(start, start + n)]
