//! What only the store on disk must hold: full and failing disks, strange files, other processes, sudden death.
