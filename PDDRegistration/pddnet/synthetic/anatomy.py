"""All solids of one patient, and the order they are painted in."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pddnet.synthetic import organs as organ
from pddnet.synthetic import skeleton
from pddnet.synthetic.appearance import FAT, SKIN, Attenuation, Palette
from pddnet.synthetic.body import SKIN_MM, Trunk, back_muscles, heart, mediastinum, oesophagus
from pddnet.synthetic.bowel import colon, small_bowel
from pddnet.synthetic.canvas import Canvas
from pddnet.synthetic.habitus import Habitus
from pddnet.synthetic.implicit import Solid, ellipsoid, intersection
from pddnet.synthetic.texture import Texture
from pddnet.synthetic.vessels import Vessels, build_vessels

_DISC = 85.0
_CARTILAGE = 110.0
_CANAL = 18.0


@dataclass(frozen=True)
class Anatomy:
    """One patient's solids in anatomical coordinates: mm, LPS, the origin between L3 and L4 in the middle."""

    trunk: Trunk
    organs: organ.Organs
    vessels: Vessels
    colon: Solid
    small_bowel: Solid
    stomach_level: float
    palette: Palette

    @classmethod
    def built(cls, habitus: Habitus, attenuation: Attenuation, generator: torch.Generator) -> Anatomy:
        """The anatomy for given shape and tissue values; the generator decides bowel loops and textures."""
        texture = Texture(generator)
        trunk = Trunk(habitus)
        organs = organ.build_organs(habitus, trunk, texture)
        front, back = organs.stomach.low[1], organs.stomach.high[1]
        return cls(
            trunk=trunk,
            organs=organs,
            vessels=build_vessels(habitus, generator),
            colon=colon(habitus),
            small_bowel=small_bowel(habitus, generator),
            stomach_level=front + habitus.stomach_gas * (back - front),
            palette=Palette(attenuation, texture),
        )

    def paint(self, canvas: Canvas) -> None:
        """Paint everything, from the skin to the bones."""
        self._paint_trunk(canvas)
        self._paint_chest(canvas)
        self._paint_bowel(canvas)
        self._paint_vessels(canvas)
        self._paint_upper_organs(canvas)
        self._paint_retroperitoneum(canvas)
        self._paint_pelvis(canvas)
        self._paint_bones(canvas)

    def _paint_trunk(self, canvas: Canvas) -> None:
        from_skin, from_muscle = self.trunk.layers(canvas.points)
        from_cavity = self.trunk.cavity.distance(canvas.points)
        covered = -canvas.softness  # nothing need be painted that far inside the next layer
        palette = self.palette
        for distance, tissue in (
            (torch.maximum(from_skin, covered - from_muscle), SKIN),
            (torch.maximum(from_skin + SKIN_MM, covered - from_muscle), palette.fat),
            (torch.maximum(from_muscle, covered - from_cavity), palette.muscle),
            (from_cavity, palette.fat),
        ):
            canvas.cover(canvas.whole, distance, tissue, canvas.points)
        muscles = skeleton.mirrored(back_muscles())
        canvas.paint(muscles.grown(1.5), FAT)
        canvas.paint(muscles, palette.muscle)

    def _paint_chest(self, canvas: Canvas) -> None:
        chest, above = self.trunk.chest, self.trunk.above_diaphragm
        canvas.paint(chest.grown(2.5), self.palette.mean.muscle)
        canvas.paint(chest, self.palette.lung)
        canvas.paint(intersection(mediastinum(), above), self.palette.mean.muscle)
        blood = (self.palette.mean.cava + self.palette.mean.aorta) / 2
        canvas.paint(intersection(heart(), above), self.palette.parenchyma(blood))
        canvas.paint(oesophagus(), self.palette.mean.bowel_wall)

    def _paint_bowel(self, canvas: Canvas) -> None:
        canvas.paint(self.vessels.mesenteric, self.palette.mean.portal)
        canvas.paint(self.small_bowel, self.palette.small_bowel())
        canvas.paint(self.colon, self.palette.colon())
        canvas.paint(self.organs.duodenum, self.palette.hollow(3.0, lambda p: torch.full_like(p[0], 22.0)))
        canvas.paint(self.organs.stomach, self.palette.stomach(self.stomach_level))

    def _paint_vessels(self, canvas: Canvas) -> None:
        mean = self.palette.mean
        for kidney in (self.organs.right_kidney, self.organs.left_kidney):
            canvas.paint(kidney.sinus, FAT + 35)
        canvas.paint(self.vessels.veins, mean.cava)
        canvas.paint(self.vessels.arteries, mean.aorta)

    def _paint_upper_organs(self, canvas: Canvas) -> None:
        mean, organs, tissue = self.palette.mean, self.organs, self.palette.parenchyma
        canvas.paint(organs.spleen, tissue(mean.spleen), organ.SPLEEN)
        canvas.paint(organs.liver, tissue(mean.liver), organ.LIVER)
        canvas.paint(self.vessels.hepatic, mean.hepatic, label=None)
        canvas.paint(self.vessels.portal, mean.portal, label=None)
        canvas.paint(self.vessels.cava, mean.cava)
        canvas.paint(organs.gallbladder, mean.bile, organ.GALLBLADDER)
        canvas.paint(organs.pancreas, tissue(mean.pancreas, 12.0, 5.0), organ.PANCREAS)

    def _paint_retroperitoneum(self, canvas: Canvas) -> None:
        organs = self.organs
        for psoas, label in ((organs.right_psoas, organ.RIGHT_PSOAS), (organs.left_psoas, organ.LEFT_PSOAS)):
            canvas.paint(psoas.grown(1.5), FAT, label=None)  # tells it from the muscles of the hip
            canvas.paint(psoas, self.palette.muscle, label)
        canvas.paint(organs.right_kidney.body, self.palette.kidney, organ.RIGHT_KIDNEY)
        canvas.paint(organs.left_kidney.body, self.palette.kidney, organ.LEFT_KIDNEY)

    def _paint_pelvis(self, canvas: Canvas) -> None:
        mean = self.palette.mean
        below_bladder = ellipsoid((0.0, 8.0, -166.0), (24.0, 18.0, 20.0))
        canvas.paint(below_bladder, self.palette.parenchyma(mean.muscle))
        urine = self.palette.hollow(2.5, lambda p: torch.full_like(p[0], mean.urine))
        canvas.paint(self.organs.bladder, urine, organ.BLADDER)

    def _paint_bones(self, canvas: Canvas) -> None:
        spine, (rib_bones, cartilage) = skeleton.Spine(), skeleton.ribs(self.trunk)
        canvas.paint(cartilage, _CARTILAGE)
        canvas.paint(rib_bones, self.palette.bone(1.5))
        canvas.paint(skeleton.sternum(), self.palette.bone(1.5))
        canvas.paint(spine.column, _DISC)
        for solid in (spine.bodies, spine.arches, skeleton.mirrored(skeleton.sacrum())):
            canvas.paint(solid, self.palette.bone())
        canvas.paint(spine.canal, _CANAL)
        canvas.paint(skeleton.symphysis(), _CARTILAGE)
        for solid in (skeleton.hip_bone(), skeleton.femur()):
            canvas.paint(skeleton.mirrored(solid), self.palette.bone(2.5))
