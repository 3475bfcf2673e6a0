#!/bin/sh
# The browser that the tests open the report and the viewer in: installs Debian's Chromium where root may,
# else says in one line how to get it. The tests that need it skip without.
have() { command -v "$1" >/dev/null 2>&1; }

if have chromedriver && { have chromium || have chromium-browser || have google-chrome; }; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && have apt-get && grep -q '^ID=debian' /etc/os-release 2>/dev/null; then
    echo "installing chromium and chromium-driver for the tests of report and viewer"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >/dev/null 2>&1
    apt-get -qq install --yes --no-install-recommends chromium chromium-driver >/dev/null 2>&1 && exit 0
fi
echo "no browser: tests/integration/test_viewer_browser.py will skip; install Chromium and its chromedriver" \
    "(Debian: apt-get install chromium chromium-driver)" >&2
