"""Made-up patients and deformations of known truth: for tests, the demonstration and training."""

from pddnet.synthetic.appearance import Contrast
from pddnet.synthetic.deformation import synthetic_deformation
from pddnet.synthetic.organs import ORGAN_NAMES
from pddnet.synthetic.patient import SyntheticPatient, synthetic_patient

__all__ = ["ORGAN_NAMES", "Contrast", "SyntheticPatient", "synthetic_deformation", "synthetic_patient"]
