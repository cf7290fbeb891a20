"""Design of defect structures: from wanted levels to ranked candidates."""
