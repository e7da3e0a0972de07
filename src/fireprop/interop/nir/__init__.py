"""Networks and spikes in NIR, the Neuromorphic Intermediate Representation (docs/nir.md). Needs the extra `nir`.

>>> from fireprop.nn import LIF
>>> back = from_nir(to_nir(LIF(2, 3, tau_mem=1.0, tau_syn=0.5)))
>>> back
Sequential(
  (0): LIF(2, 3, tau_mem=1, tau_syn=0.5, v_threshold=1, t_ref=0)
)
"""

from fireprop.interop.nir.events import spikes_from_nirdata, spikes_to_nirdata
from fireprop.interop.nir.exporting import to_nir
from fireprop.interop.nir.importing import from_nir
from fireprop.interop.nir.loading import read_nir

__all__ = ["from_nir", "read_nir", "spikes_from_nirdata", "spikes_to_nirdata", "to_nir"]
