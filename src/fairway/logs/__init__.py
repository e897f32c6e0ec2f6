"""Logs: what the apps print, read from their files, told apart into lines, merged by time.

Apps write their files themselves; this package only reads them and keeps, beside each, a small index of when which
byte had arrived. `fairway.logs.service.LogService` follows all files, `fairway.logs.query` answers from them.
"""
