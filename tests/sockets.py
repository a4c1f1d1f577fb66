"A watch over sockets: whatever in this process names another machine, or opens a port that another could reach, is refused and noted."
import socket
import sys

SEEN = []  # what was refused, as text
WATCHED = {'socket.connect': 1, 'socket.bind': 1, 'socket.sendto': 1, 'socket.sendmsg': 1,  # event of Python -> where its arguments have the address
           'socket.getaddrinfo': 0, 'socket.gethostbyname': 0, 'socket.gethostbyaddr': 0}


def host_of(event: str, args) -> str | None:
    "The host that an event names; None if it names none, as a pipe between two processes."
    if WATCHED[event] == 0: return args[0] and str(args[0])
    if args[0].family not in (socket.AF_INET, socket.AF_INET6) or not args[1]: return None
    return str(args[1][0])


def is_here(host: str | None) -> bool:
    "Does nobody but this machine answer to that name? An empty host stands for all interfaces, so it does not."
    return host is None or host in ('localhost', '::1') or host.startswith(('127.', socket.gethostname()))


def watch(log=None):
    "From now on, in this process, refuse and note; `log` is a file that takes the notes of several processes."
    def look(event, args):
        if event not in WATCHED or is_here(host := host_of(event, args)): return
        SEEN.append(f'{event} {host}')
        if log:
            with open(log, 'a', encoding='utf-8') as f: f.write(f'{event} {host} {sys.argv[:1]}\n')
        raise OSError(f'{event} {host}: no test uses the network')
    sys.addaudithook(look)
