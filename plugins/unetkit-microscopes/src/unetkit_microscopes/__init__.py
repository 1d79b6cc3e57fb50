"""Files of microscopes as image files of unetkit: CZI, ND2, LIF, and what bioio opens."""
