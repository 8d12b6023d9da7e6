"""Every fault that an attacker of the API and the commands found, each reproduced; `docs/reliability.md` lists them."""
