"""A package beside defectgen that adds one part of each kind, a file each; defectgen finds them by entry points."""
