#!/bin/sh
# Example for hosts without firewalld and nft: DEVICES and MONITORING are networks. Run as root; then save
# the rules as your distribution does (`service iptables save`, `netfilter-persistent save`).
set -eu
DEVICES=${DEVICES:-10.0.0.0/8}
MONITORING=${MONITORING:-10.0.9.0/24}
add() { iptables -C INPUT "$@" 2>/dev/null || iptables -A INPUT "$@"; }
add -p tcp -s "$DEVICES" -m multiport --dports 8080,8090,5514,9002 -j ACCEPT
add -p udp -s "$DEVICES" -m multiport --dports 162,5514 -j ACCEPT
add -p tcp -s "$MONITORING" -m multiport --dports 8080:8084,8086,8087,8090 -j ACCEPT
