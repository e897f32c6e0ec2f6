"""From the registry to nginx.conf: pure functions, nothing is written or executed here.

`fairway.nginx.site` turns apps into sites and refuses what could escape into the configuration,
`fairway.nginx.render` turns sites into text for a given NGINX version. `fairway.platform.nginx_tree` writes, tests,
swaps and reloads.
"""
