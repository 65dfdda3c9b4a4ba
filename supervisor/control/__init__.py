"""The control plane: how the command line, the dashboard and other programs talk to a running supervisor.

`endpoint` says where it is, `guard` who may enter, `app` what can be asked, `server` runs it, `client` asks.
"""
