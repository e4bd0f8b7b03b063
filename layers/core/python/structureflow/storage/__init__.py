"""Object storage: one small port (`base`), its adapters (`s3`, `local`, `memory`)."""
